"""The rules of the house: who imports whom, where version differences live, what docs must say."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"network": set(), "data": set(), "dataset": {"data"}, "train": set()}  # room -> rooms that it may import
SEAMS = {"torch_npu": {"train/device.py"}, "apex": {"train/amp_apex.py"}, "torch.distributed": {"train/distributed.py"},
         "tqdm": {"train/log.py"},
         "matplotlib": {"train/curves.py", "tools/timeline.py", "tools/graph_picture.py", "tools/study_picture.py"},
         "tensorboard": {"train/log.py"},
         "onnx": {"tools/export_graph.py"}, "onnxruntime": {"tools/export_formats.py", "tools/onnx_predict.py"},
         "safetensors": {"tools/export_formats.py"},
         "av": {"data/strict_decoding.py", "dataset/reencode.py", "tools/benchmark_films.py"}}
SOURCES = sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] in (*ROOMS, "tools") or p.parent == ROOT)


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "%s: relative import" % path
            for alias in node.names:
                yield "%s.%s" % (node.module, alias.name)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(path):
    name = str(path.relative_to(ROOT))
    room = name.split("/")[0]
    for module in _imports(path):
        head = module.split(".")[0]
        if room in ROOMS and head in ROOMS and head != room and not module.startswith("network.safe_load"):
            assert head in ROOMS[room], "%s reaches into %s" % (name, head)
        for seam, homes in SEAMS.items():
            if module == seam or module.startswith(seam + "."):
                assert name in homes, "%s imports %s" % (name, module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last = max(getattr(part, "lineno", 0) for part in ast.walk(node))
            assert last - node.lineno < 50, "%s: %s is long" % (path, node.name)
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "%s: bare except" % path


def test_no_version_strings_are_compared():
    for path in SOURCES:
        assert "torch.__version__.split" not in path.read_text(), path


def test_the_architecture_page_shows_every_file():
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    for path in SOURCES:
        if path.name != "__init__.py":
            assert str(path.relative_to(ROOT)) in page, "docs/ARCHITECTURE.md lacks %s" % path.name


def test_no_package_shadows_the_standard_librarys_test():
    assert not (ROOT / "test" / "__init__.py").exists()


def test_scripts_are_executable_and_short():
    for path in (ROOT / "test").glob("*.sh"):
        assert path.stat().st_mode & 0o100, path
        assert subprocess.call(["bash", "-n", str(path)]) == 0


def _device_names(source):
    """Where a source calls a device by its name instead of asking train/device.py: torch.cuda, torch.npu, x.cuda()."""
    return sorted(node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)
                  and node.attr in ("cuda", "npu"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_device_is_called_by_its_name_outside_the_seams(path):
    if str(path.relative_to(ROOT)) not in ("train/device.py", "train/amp.py"):
        assert _device_names(path.read_text(encoding="utf-8")) == []


def test_a_planted_call_of_a_device_is_found():
    assert _device_names("import torch\ntorch.cuda.synchronize()\nx.cuda()\ny = torch.npu.Stream()") == [2, 3, 4]


# Calls that every process must make; OWNER.NAME where others have the name.
COLLECTIVES = {"all_reduce", "all_reduce_sum", "average_buffers", "barrier", "gather_rows", "gather_texts", "wrap",
               "init_process_group", "_unused_store", "synchronize_norms", "refine_batchnorm", "reestimate_statistics",
               "agreed", "stop.watch", "evaluate", "_evaluate", "_settle_and_evaluate", "_assess", "_close_epoch",
               "_train_epoch", "_save_or_stop", "_end", "_report", "fit", "snapshot", "_snapshot", "record.save",
               "self.save", "record.epoch", "bad_steps.note", "_dump", "state.resume", "self._check", "build_trainer",
               "distributed.start", "start_runtime", "start_machine", "score_videos", "collected.table", "_execute",
               "kept.write", "job.execute", "compose", "Job", "trainer.step", "_Normalize.apply", "profile_steps",
               "_step"}
BY_ANOTHER_NAME = {  # functions that make such calls, and how they are called themselves
    "watch": "stop.watch", "save": "record.save", "epoch": "record.epoch", "note": "bad_steps.note",
    "resume": "state.resume", "_check": "self._check", "start": "distributed.start", "table": "collected.table",
    "execute": "job.execute", "__init__": "Job", "write": "kept.write",
    "forward": "_Normalize.apply", "backward": "_Normalize.apply"}
TOGETHER = [p for p in SOURCES if p.parent == ROOT / "train"] + [
    ROOT / name for name in ("train_model.py", "tools/running.py", "tools/evaluate.py")]  # what several processes run


def _collectives_in(tree):
    """Lines of the calls that every process must make."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            owner = getattr(node.func, "value", None)
            if COLLECTIVES & {name, "%s.%s" % (getattr(owner, "attr", getattr(owner, "id", "")).strip("_"), name)}:
                yield node.lineno


def _is_of_one_rank(test):
    return any(isinstance(node, ast.Attribute) and node.attr in ("rank", "writes") or isinstance(node, ast.Name)
               and node.id in ("rank", "writes") for node in ast.walk(test))


def _collectives_of_one_rank(source):
    """Lines on which a call that all processes must make stands where only some come: in a branch on the rank, or
    behind one that returns.
    """
    found = set()
    for block in (getattr(node, name) for node in ast.walk(ast.parse(source)) for name in ("body", "orelse")
                  if isinstance(getattr(node, name, None), list)):
        for place, statement in enumerate(block):
            if not (isinstance(statement, ast.If) and _is_of_one_rank(statement.test)):
                continue
            leaves = isinstance(statement.body[-1], (ast.Return, ast.Continue, ast.Break))
            parts = statement.body + statement.orelse + (block[place + 1:] if leaves else [])
            found.update(line for part in parts for line in _collectives_in(part))
    return sorted(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_process_waits_for_others_where_only_some_come(path):
    assert _collectives_of_one_rank(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TOGETHER, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_makes_calls_of_all_processes_is_one_itself(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and list(_collectives_in(node)):
            known = BY_ANOTHER_NAME.get(node.name, node.name)
            assert known in COLLECTIVES | {"main", "run"}, "%s: add %s to COLLECTIVES" % (path, node.name)


def test_a_planted_collective_of_one_rank_is_found():
    assert _collectives_of_one_rank("if ranks.rank == 0:\n    x()\n    barrier(d)\nbarrier(d)") == [3]
    behind = "def f(self):\n    if not self.writes:\n        return\n    self.run.evaluate()"
    assert _collectives_of_one_rank(behind) == [4]


def test_no_two_test_files_share_a_name():
    names = [path.name for path in ROOT.glob("test/unit/**/*.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
