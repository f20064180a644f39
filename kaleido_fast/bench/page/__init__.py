"""bench.md in sections: functions from result files to Markdown. benchmarks/render.py puts them together."""
