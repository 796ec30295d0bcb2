"""Prints what the safetensors package finds in a file: metadata, then name, type, shape and bytes of each tensor."""

import json
import sys

import ml_dtypes  # noqa: F401  bfloat16 for numpy
from safetensors import safe_open

with safe_open(sys.argv[1], framework="numpy") as f:
    print(json.dumps({"metadata": f.metadata()}, sort_keys=True))
    for name in f.keys():
        a = f.get_tensor(name)
        print(json.dumps({"name": name, "type": str(a.dtype), "shape": list(a.shape), "bytes": a.tobytes().hex()}))
