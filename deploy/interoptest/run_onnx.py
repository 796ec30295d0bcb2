"""Runs a model of ONNX Runtime on images (a raw file of 28x28 bytes each); writes the logits as little-endian floats."""

import json
import sys

import numpy
import onnxruntime

model, images, logits = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
x = numpy.fromfile(images, dtype=numpy.uint8).reshape(-1, 1, 28, 28)
parts = [session.run(["logits"], {"images": x[i : i + 500]})[0] for i in range(0, len(x), 500)]
numpy.concatenate(parts).astype("<f4").tofile(logits)
print(json.dumps(session.get_modelmeta().custom_metadata_map, sort_keys=True))
