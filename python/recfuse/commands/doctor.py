"""The command `doctor`."""

from __future__ import annotations

from recfuse.backend import doctor

__all__ = ["report"]


def report() -> str:
    """Return what `recfuse.doctor` found, for a person."""
    found = doctor()
    isa, cuda, ort = found["isa"], found["cuda"], found["onnxruntime"]
    onnxruntime = "not installed: pip install 'recfuse[onnx]'"
    if ort["version"]:
        onnxruntime = f"{ort['version']}, a wheel with {', '.join(ort['providers'])}"
    lines = {
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "kernels": f"{isa['active']} (this CPU runs {', '.join(isa['available'])})",
        "threads": f"{found['threads']} by default",
        "CUDA": "usable" if cuda["usable"] else f"off: {cuda['reason']}",
        "ONNX Runtime": onnxruntime,
    }
    return "\n".join(f"{name + ':':14}{text}" for name, text in lines.items())
