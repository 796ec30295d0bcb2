"""Prints all scalars, and the sizes of all pictures, that TensorBoard's own loader finds below a folder: {tag: [[step, value], ...]}."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0, "images": 0})
events.Reload()
found = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
for tag in events.Tags()["images"]:
    found[tag] = [[e.step, e.width * e.height] for e in events.Images(tag)]
for tag in events.Tags()["tensors"]:
    for e in events.Tensors(tag):
        width, height, png = e.tensor_proto.string_val[:3]
        assert png.startswith(b"\x89PNG")
        found.setdefault(tag, []).append([e.step, int(width) * int(height)])
print(json.dumps(found))
