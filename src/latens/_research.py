"""Imported first by every package that is made for PyTorch: who lacks it is told what to install."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "this part of Latens is for research and needs PyTorch: pip install 'latens[torch]'", name="torch"
    ) from error
