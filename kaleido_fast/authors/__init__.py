"""All that reads the authors' formats: feature files, TensorFlow checkpoint, their config and names."""
