"""/proc → CPU time of a process and its children."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.bench.cpu import read_core_wait_s, read_cpu_s

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def stat(proc: Path, pid: int, parent: int, *ticks: int, name: str = "python") -> None:
    (proc / str(pid)).mkdir()
    fields = ["S", parent, *range(9), *ticks, *range(30)]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(map(str, fields))}\n")


def test_children_of_children_count_and_others_do_not(tmp_path: Path) -> None:
    stat(tmp_path, 10, 1, 100, 10, 5, 1)
    stat(tmp_path, 11, 10, 30, 3, 0, 0, name="a (b) 1 2")
    stat(tmp_path, 9, 11, 7, 0, 0, 0)
    stat(tmp_path, 12, 1, 1000, 1000, 0, 0)
    (tmp_path / "13").mkdir()  # ended since it was listed
    (tmp_path / "meminfo").write_text("")

    assert read_cpu_s(10, proc=tmp_path) == pytest.approx(156 * TICK_S)
    assert read_cpu_s(13, proc=tmp_path) is None


def test_it_is_what_the_system_says_of_this_process() -> None:
    before = read_cpu_s(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    after = read_cpu_s(os.getpid())

    assert before is not None
    assert after is not None
    assert 0.3 - 2 * TICK_S <= after - before < 10


def test_waiting_for_a_core_is_told_where_the_system_counts_it(tmp_path: Path) -> None:
    assert read_core_wait_s(proc=tmp_path) is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "schedstat").write_text("4242 1500000000 17\n")

    assert read_core_wait_s(proc=tmp_path) == 1.5
