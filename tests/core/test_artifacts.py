"""Published directories: all there or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from recall.core.artifacts import MANIFEST, checksum, fingerprint, publish, read_json, read_manifest, write_json
from recall.core.errors import ArtifactError


def _publish(directory: Path, text: str, **content: Any) -> None:
    with publish(directory, manifest=dict(content)) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "part.txt").write_text(text)


def _read(directory: Path, *, verify: bool = True) -> dict[str, Any]:
    return read_manifest(directory, made_by="recall prepare", verify=verify)


class TestPublish:
    def test_published_directory_reads_back_with_its_manifest(self, tmp_path: Path) -> None:
        _publish(tmp_path / "data", "hello", rows=3)
        manifest = _read(tmp_path / "data")
        assert manifest["rows"] == 3
        assert manifest["files"]["sub/part.txt"]["bytes"] == 5

    def test_manifest_may_be_filled_while_writing(self, tmp_path: Path) -> None:
        manifest: dict[str, Any] = {}
        with publish(tmp_path / "data", manifest=manifest):
            manifest["rows"] = 7
        assert _read(tmp_path / "data")["rows"] == 7

    def test_nothing_is_at_the_place_while_writing(self, tmp_path: Path) -> None:
        with publish(tmp_path / "deep" / "data", manifest={}) as scratch:
            assert scratch.is_dir()
            assert not (tmp_path / "deep" / "data").exists()
        assert os.listdir(tmp_path / "deep") == ["data"]

    def test_new_artifact_replaces_the_old_one_whole(self, tmp_path: Path) -> None:
        _publish(tmp_path / "data", "old")
        with publish(tmp_path / "data", manifest={}) as scratch:
            (scratch / "other.txt").write_text("new")
        assert set(_read(tmp_path / "data")["files"]) == {"other.txt"}
        assert not (tmp_path / "data" / "sub").exists()
        assert os.listdir(tmp_path) == ["data"]

    @pytest.mark.parametrize("error", [ValueError("bad row"), KeyboardInterrupt()])
    def test_error_while_writing_leaves_the_old_artifact_alone(self, tmp_path: Path, error: BaseException) -> None:
        _publish(tmp_path / "data", "old")

        def fail() -> None:
            with publish(tmp_path / "data", manifest={}) as scratch:
                (scratch / "half.txt").write_text("half")
                raise error

        with pytest.raises(type(error)):
            fail()
        assert (tmp_path / "data" / "sub" / "part.txt").read_text() == "old"
        assert os.listdir(tmp_path) == ["data"]
        _read(tmp_path / "data")

    def test_full_disk_is_one_clear_error_and_leaves_nothing(self, tmp_path: Path) -> None:
        def fill() -> None:
            with publish(tmp_path / "data", manifest={}) as scratch:
                (scratch / "half.txt").write_text("half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(ArtifactError, match=r"data: could not be written .*No space left.*Free some space"):
            fill()
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
    def test_failure_of_the_last_rename_brings_the_old_artifact_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        _publish(tmp_path / "data", "old")
        monkeypatch.setattr("recall.core.replacing.exchange", lambda one, other: False)
        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if target == tmp_path / "data" and not self.name.endswith(".old"):
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises((ArtifactError, KeyboardInterrupt)):
            _publish(tmp_path / "data", "new")
        assert (tmp_path / "data" / "sub" / "part.txt").read_text() == "old"
        assert os.listdir(tmp_path) == ["data"]

    def test_killed_run_leaves_nothing_that_loads(self, tmp_path: Path) -> None:
        script = f"""
            import os, signal
            from pathlib import Path
            from recall.core.artifacts import publish
            with publish(Path({str(tmp_path / "data")!r}), manifest={{}}) as scratch:
                (scratch / "half.txt").write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        """
        killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
        assert killed.returncode == -signal.SIGKILL
        with pytest.raises(ArtifactError, match="not there yet"):
            _read(tmp_path / "data")
        _publish(tmp_path / "data", "second try")
        assert set(_read(tmp_path / "data")["files"]) == {"sub/part.txt"}

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_kill_at_the_exchange_leaves_the_old_artifact_or_the_new_one(self, tmp_path: Path, moment: str) -> None:
        _publish(tmp_path / "data", "old")
        _publish_and_die(tmp_path / "data", f"""
            import recall.core.replacing
            exchange = recall.core.replacing.exchange
            def dying(one, other):
                if {moment == "after"}:
                    assert exchange(one, other)
                os.kill(os.getpid(), signal.SIGKILL)
            recall.core.replacing.exchange = dying
        """)  # fmt: skip
        assert _read(tmp_path / "data")
        assert (tmp_path / "data" / "sub" / "part.txt").read_text() == ("old" if moment == "before" else "killed")
        _publish(tmp_path / "data", "next")
        assert os.listdir(tmp_path) == ["data"], "what the killed run left is cleared away"

    def test_a_kill_between_two_renames_is_told_and_the_old_artifact_comes_back(self, tmp_path: Path) -> None:
        _publish(tmp_path / "data", "old")
        _publish_and_die(tmp_path / "data", """
            import recall.core.replacing
            recall.core.replacing.exchange = lambda one, other: False
            rename = Path.rename
            def dying(self, target):
                rename(self, target)
                os.kill(os.getpid(), signal.SIGKILL)
            Path.rename = dying
        """)  # fmt: skip
        with pytest.raises(
            ArtifactError, match=r"data: a kill came .* in \.data\.\w{8}\.old beside it; rename that to data"
        ):
            _read(tmp_path / "data")
        with pytest.raises(ValueError, match="bad row"), publish(tmp_path / "data", manifest={}):
            raise ValueError("bad row")
        _read(tmp_path / "data")
        assert (tmp_path / "data" / "sub" / "part.txt").read_text() == "old", "brought back before anything is written"
        assert os.listdir(tmp_path) == ["data"]


def _publish_and_die(directory: Path, how: str) -> None:
    script = [
        "import os, signal",
        "from pathlib import Path",
        "from recall.core.artifacts import publish",
        textwrap.dedent(how),
        f"with publish(Path({str(directory)!r}), manifest={{}}) as scratch:",
        "    (scratch / 'sub').mkdir()",
        "    (scratch / 'sub' / 'part.txt').write_text('killed')",
    ]
    killed = subprocess.run([sys.executable, "-c", "\n".join(script)], check=False)
    assert killed.returncode == -signal.SIGKILL


class TestReadManifest:
    def test_missing_artifact_names_the_command_that_makes_it(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"data: not there yet; run `recall prepare` first"):
            _read(tmp_path / "data")

    def test_missing_and_truncated_files_are_found_by_size(self, tmp_path: Path) -> None:
        _publish(tmp_path / "data", "hello")
        part = tmp_path / "data" / "sub" / "part.txt"
        part.write_text("hell")
        with pytest.raises(ArtifactError, match=r"part\.txt: has 4 bytes, the manifest says 5 bytes; run `recall prep"):
            _read(tmp_path / "data", verify=False)
        part.unlink()
        with pytest.raises(ArtifactError, match=r"part\.txt: is missing"):
            _read(tmp_path / "data", verify=False)

    def test_altered_bytes_are_found_when_verifying(self, tmp_path: Path) -> None:
        _publish(tmp_path / "data", "hello")
        (tmp_path / "data" / "sub" / "part.txt").write_text("hallo")
        _read(tmp_path / "data", verify=False)
        with pytest.raises(ArtifactError, match=r"part\.txt: its checksum differs"):
            _read(tmp_path / "data", verify=True)

    @pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
    def test_damaged_manifest_says_what_to_run(self, tmp_path: Path, content: str) -> None:
        _publish(tmp_path / "data", "hello")
        (tmp_path / "data" / MANIFEST).write_text(content)
        with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read .*run `recall prepare` again"):
            _read(tmp_path / "data")

    @pytest.mark.parametrize(
        "escape", ["../outside.txt", "sub/../../outside.txt", "absolute", "linked.txt", "link/outside.txt"]
    )
    def test_a_file_outside_of_the_directory_is_never_opened(self, tmp_path: Path, escape: str) -> None:
        _publish(tmp_path / "data", "hello")
        outside = tmp_path / "outside.txt"
        outside.write_text("hello")
        (tmp_path / "data" / "linked.txt").symlink_to(outside)
        (tmp_path / "data" / "link").symlink_to(tmp_path)
        path = tmp_path / "data" / MANIFEST
        manifest = json.loads(path.read_text())
        (entry,) = manifest["files"].values()  # the bytes and checksum of "hello": all else is right
        manifest["files"] = {str(outside) if escape == "absolute" else escape: entry}
        write_json(path, manifest, checksummed=True)
        with pytest.raises(
            ArtifactError, match=r"names '.*', which is outside of .*data; .*run `recall prepare` again"
        ):
            _read(tmp_path / "data")

    def test_the_directory_itself_may_be_a_link(self, tmp_path: Path) -> None:
        _publish(tmp_path / "elsewhere" / "data", "hello")
        (tmp_path / "data").symlink_to(tmp_path / "elsewhere" / "data")
        assert set(_read(tmp_path / "data")["files"]) == {"sub/part.txt"}


class TestJsonAndHashes:
    def test_any_bit_and_any_cut_of_checksummed_json_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.json"
        write_json(path, {"a": 1, "text": "ü", "b": [1.5, None]}, checksummed=True)
        whole = path.read_bytes()
        assert read_json(path) == {"a": 1, "text": "ü", "b": [1.5, None]}
        for place in range(len(whole)):
            path.write_bytes(whole[:place])
            with pytest.raises(ValueError, match=r".+"):
                read_json(path)
            for bit in range(8):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
                try:
                    found = read_json(path)
                except ValueError:
                    continue
                # The name of the checksum itself: what it is of is unaltered.
                assert {"a": 1, "text": "ü", "b": [1.5, None]}.items() <= found.items()

    def test_json_is_replaced_whole_and_leaves_no_other_file(self, tmp_path: Path) -> None:
        write_json(tmp_path / "m.json", {"a": 1})
        write_json(tmp_path / "m.json", {"b": [1.5, None]})
        assert json.loads((tmp_path / "m.json").read_text()) == {"b": [1.5, None]}
        assert os.listdir(tmp_path) == ["m.json"]

    def test_json_that_cannot_be_written_leaves_the_old_file(self, tmp_path: Path) -> None:
        write_json(tmp_path / "m.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "m.json", {"a": object()})
        assert json.loads((tmp_path / "m.json").read_text()) == {"a": 1}
        assert os.listdir(tmp_path) == ["m.json"]

    def test_checksum_is_the_published_crc32c(self, tmp_path: Path) -> None:
        # RFC 3720, appendix B.4: 32 bytes of zeros, and the well-known check value of "123456789".
        (tmp_path / "zeros").write_bytes(bytes(32))
        (tmp_path / "digits").write_bytes(b"123456789")
        assert checksum(tmp_path / "zeros") == "8a9136aa"
        assert checksum(tmp_path / "digits") == "e3069283"

    def test_fingerprint_depends_on_content_not_on_key_order(self) -> None:
        assert fingerprint({"a": 1, "b": [2]}, "x") == fingerprint({"b": [2], "a": 1}, "x")
        different = {
            fingerprint(*parts) for parts in [("ab",), ("a", "b"), (["a", "b"],), ({"a": 1},), ({"a": 2},), ()]
        }
        assert len(different) == 6


def test_what_a_killed_writer_left_is_removed_by_the_next_and_the_file_of_a_living_one_stays(tmp_path: Path) -> None:
    path, dead, alive = tmp_path / "timing.json", tmp_path / ".timing.json.00c0ffee", tmp_path / ".timing.json.0badcafe"
    other = tmp_path / ".timing.json.notes"
    for file in (dead, alive, other):
        file.write_text("{")
    with alive.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_json(path, {"prepare_seconds": 1.0})
        assert {file.name for file in tmp_path.iterdir()} == {path.name, alive.name, other.name}
    write_json(path, {"prepare_seconds": 2.0})
    assert {file.name for file in tmp_path.iterdir()} == {path.name, other.name}
    assert read_json(path) == {"prepare_seconds": 2.0}
