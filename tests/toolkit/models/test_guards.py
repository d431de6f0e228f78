"""Guards: each refuses its trap, and lets everything else pass."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from toolkit.config.schema import ModelSpec, QuantizationSpec
from toolkit.errors import EnvironmentLacking, RecipeError
from toolkit.models import guards


def test_importing_the_guards_loads_no_torch():
    code = "import sys; from toolkit.models import guards; guards.prepare_process(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    guards.prepare_process()
    assert guards.os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    guards.prepare_process()
    assert guards.os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"quantization": QuantizationSpec(compute_dtype="float16")}, "quantization.compute_dtype"),
    ],
)
def test_float16_is_refused_on_a_cpu(settings, key):
    spec = ModelSpec(id="x", **settings)
    with pytest.raises(RecipeError, match=key):
        guards.check_precision(spec, on_cpu=True)
    guards.check_precision(spec, on_cpu=False)


def test_bfloat16_on_a_cpu_is_worth_a_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="vlm_rlhf"):
        guards.check_precision(ModelSpec(id="x", dtype="bfloat16"), on_cpu=True)
        assert "slower" in caplog.text
        caplog.clear()
        guards.check_precision(ModelSpec(id="x"), on_cpu=True)
        assert not caplog.text


def test_broken_torchvision_is_refused_and_a_missing_one_is_fine(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(guards.importlib.util, "find_spec", lambda name: None)
    guards.check_torchvision()
    monkeypatch.undo()
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentLacking, match="operator nms") as caught:
        guards.check_torchvision()
    assert "uninstall torchvision" in caught.value.remedy


def test_bitsandbytes_switch(monkeypatch):
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    guards.keep_bitsandbytes_weights_unpacked()
    assert modules.has_avx512bf16() is False
    monkeypatch.delattr(modules, "has_avx512bf16")
    with pytest.raises(EnvironmentLacking, match="switch"):
        guards.keep_bitsandbytes_weights_unpacked()


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert guards.init_distributed_on_cpu() is False


_TWO = """
import sys
from toolkit.models.guards import init_distributed_on_cpu
import torch.distributed as dist
started = init_distributed_on_cpu()
with open(sys.argv[1] + dist.get_rank().__str__(), "w") as file:
    file.write(f"{started} {dist.get_world_size()} {dist.get_backend()}")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_see_each_other(tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "two.py").write_text(_TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29571"]
    subprocess.run([*command, str(tmp_path / "two.py"), str(tmp_path / "rank")], check=True, timeout=600)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["True 2 gloo"] * 2
