#!/usr/bin/env python3
"""Runs NVIDIA's real Triton Inference Server with the example's models, without a container and without a GPU.

It comes from the PyPI wheel `nvidia-pytriton`, installed once into a virtual environment of its own: Triton's Python
backend needs numpy < 2. Standard library only; x86-64 Linux, Python 3.11 or 3.12 with its shared library.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src"
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON_VERSION}.so.1.0"
STUB = "triton_python_backend_stub"
EXIT_TIMEOUT_S = 3
"""How long running requests may go on after SIGTERM."""


class UnavailableError(Exception):
    """Triton cannot run here, and this is why."""


def main() -> None:
    """Prepare the environment, then become tritonserver: same process, so that its pid and signals are Triton's."""
    options = parse(sys.argv[1:])
    try:
        libraries = python_libraries()
        package = prepare(options.venv)
    except UnavailableError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        raise SystemExit(os.EX_UNAVAILABLE) from None
    if not options.prepare:
        server = package / "tritonserver" / "bin" / "tritonserver"
        os.execve(server, arguments(server, package, options), environment(package, libraries, options))  # noqa: S606


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description="Run a real Triton on loopback, with a simulated TensorRT-LLM model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--name", default="triton", help="what answers say of who served them")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--models", type=Path, default=HERE / "models", help="the model repository")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-triton", help="where Triton is installed")
    parser.add_argument("--prepare", action="store_true", help="install Triton, do not run it")
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="further options of tritonserver")
    return parser.parse_args(argv)


def python_libraries() -> Path:
    """Return the directory of this Python's shared library, which Triton's Python backend loads."""
    directory = Path(sysconfig.get_config_var("LIBDIR") or "")
    if not (directory / LIBPYTHON).exists():
        raise UnavailableError(
            f"Triton needs {LIBPYTHON}, and {sys.executable} has none in {directory}. Debian, Ubuntu: apt install "
            f"libpython{PYTHON_VERSION}. pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {PYTHON_VERSION}."
        )
    return directory


def prepare(venv: Path) -> Path:
    """Install Triton unless it is there; returns the directory of the package that holds it."""
    package = venv / "lib" / f"python{PYTHON_VERSION}" / "site-packages" / "pytriton"
    ready = venv / ".ready"
    wanted = "\n".join([*REQUIREMENTS, sys.base_prefix, str(SOURCE)])
    with locked(venv.with_name(venv.name + ".lock")):
        if not ready.exists() or ready.read_text() != wanted:
            print(f"serve.py: installing {' and '.join(REQUIREMENTS)} into {venv} (once) ...", file=sys.stderr)
            install(venv)
            # Triton starts the stub beside its Python backend; the wheel has one for each version of Python.
            tritonserver = package / "tritonserver"
            stub = tritonserver / "python_backend_stubs" / PYTHON_VERSION / STUB
            shutil.copy(stub, tritonserver / "backends" / "python" / STUB)
            # tidegate as it stands in this checkout; the Python inside Triton is isolated and reads no PYTHONPATH.
            (package.parent / "tidegate.pth").write_text(f"{SOURCE}\n")
            ready.write_text(wanted)
    return package


def install(venv: Path) -> None:
    """Make the virtual environment anew."""
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")
    python = str(venv / "bin" / "python")
    for step in ([sys.executable, "-m", "venv", "--clear", str(venv)], [python, *pip, *REQUIREMENTS]):
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603
        if done.returncode:
            said = (done.stdout.strip() or "nothing").splitlines()[-1]
            raise UnavailableError(f"cannot install {' and '.join(REQUIREMENTS)} into {venv}: {said}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time pass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def arguments(server: Path, package: Path, options: argparse.Namespace) -> list[str]:
    """Return tritonserver's command line."""
    loopback = [f"--{endpoint}-address=127.0.0.1" for endpoint in ("http", "grpc", "metrics")]
    ports = [f"--{name}-port={getattr(options, f'{name}_port')}" for name in ("http", "grpc", "metrics")]
    return [
        str(server),
        f"--id={options.name}",
        f"--model-repository={options.models}",
        f"--backend-directory={package / 'tritonserver' / 'backends'}",
        # Two Tritons on one machine must not share memory.
        f"--backend-config=python,shm-region-prefix-name=tidegate-{options.http_port}",
        *loopback,
        *ports,
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        *options.options,
    ]


def environment(package: Path, libraries: Path, options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of tritonserver and of the model's process, which inherits it."""
    # The Python inside the model's process is the first python3 on the PATH, with that one's packages.
    interpreter = package.parents[3] / "bin"
    return {
        **os.environ,
        "PATH": f"{interpreter}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{package.parent / 'nvidia_pytriton.libs'}:{libraries}",
        "SERVED_BY": options.name,
    }


if __name__ == "__main__":
    main()
