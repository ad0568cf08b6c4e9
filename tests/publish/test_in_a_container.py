"""What runs inside Triton's container runs on Python's standard library, installed or only copied there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tidegate
from tidegate.publish.triton import instance_of

PACKAGE = Path(tidegate.__file__).parent
NEEDED = ("__init__.py", "protocol", "publish")
"""docs/triton.md says to copy these."""


def test_a_copy_of_what_the_documentation_names_is_enough(tmp_path: Path) -> None:
    copy = tmp_path / "tidegate"
    copy.mkdir()
    for name in NEEDED:
        source = PACKAGE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tidegate.publish.triton as t; print(t.__file__)"

    # Isolated, and without site-packages: neither this project's environment nor its dependencies are there.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == (str(copy / "publish" / "triton.py"), "")


def test_the_documentation_names_what_is_copied() -> None:
    text = (Path(__file__).parents[2] / "docs" / "triton.md").read_text()

    assert "src/tidegate/{__init__.py,protocol,publish}" in text


@pytest.mark.parametrize(
    ("groups", "instance"),
    [
        ('[{"count": 1, "kind": "KIND_CPU", "gpus": []}]', None),
        ('[{"count": 2, "kind": "KIND_CPU", "gpus": []}]', "0_1"),
        ('[{"count": 1, "gpus": []}, {"count": 1, "gpus": []}]', "0_1"),
        ('[{"count": 1, "kind": "KIND_GPU", "gpus": [0, 1]}]', "0_1"),
        ('[{"count": 1, "kind": "KIND_GPU", "gpus": [0]}]', None),
        ("[]", None),
    ],
)
def test_an_instance_has_a_name_where_it_is_not_the_only_one(groups: str, instance: str | None) -> None:
    args = {
        "model_name": "tensorrt_llm",
        "model_instance_name": "tensorrt_llm_0_1",
        "model_config": f'{{"instance_group": {groups}}}',
    }

    assert instance_of(args) == instance
