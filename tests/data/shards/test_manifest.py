"""A manifest that several processes change."""

import threading
from pathlib import Path

from kaleido_fast.data.shards.manifest import Manifest


def test_changes_made_at_the_same_time_all_stay(tiny_shards: Path, tmp_path: Path) -> None:
    Manifest.read(tiny_shards).write(tmp_path)
    start = threading.Barrier(8)

    def change(number: int) -> None:
        start.wait()
        for name in range(5):
            Manifest.change(tmp_path, lambda manifest, name=name: manifest.with_alignment(f"{number}-{name}", ""))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Manifest.read(tmp_path).aligned) == {f"{number}-{name}" for number in range(8) for name in range(5)}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
