"""Writes reference.bin: loss, logits, gradient and one Adam step of the network,
computed by Keras in float64, for the test that compares ours with it.

    pip install tensorflow-cpu==2.21.0 && python reference.py

Inputs are given by formulas that the test repeats. Half of each image is made of
constant blocks, so that ReLU sees exact ties in the max-pool's windows.
"""
import os
import numpy as np
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import tensorflow as tf

keras.backend.set_floatx("float64")
SHAPES = [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (9216, 10), (10,)]
P = sum(int(np.prod(s)) for s in SHAPES)


def mix(x):  # SplitMix64's finaliser
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unit(stream, n):  # n numbers in [0, 1) with 24 bits
    return (mix(np.arange(n, dtype=np.uint64) + np.uint64(stream << 32)) >> np.uint64(40)).astype(np.float64) / 2**24


def cut(flat):
    parts, at = [], 0
    for s in SHAPES:
        n = int(np.prod(s))
        parts.append(flat[at:at + n].reshape(s))
        at += n
    return parts


def f32(x):
    return x.astype(np.float32).astype(np.float64)


params = f32((unit(1, P) - 0.5) * np.float64(0.125))
m0 = f32((unit(2, P) - 0.5) * np.float64(2.0**-9))
v0 = f32(unit(3, P) * np.float64(2.0**-18))
images = np.floor(unit(4, 4 * 784) * 256).reshape(4, 28, 28)
images[:, :14, :] = 64 * np.arange(4).reshape(4, 1, 1)
labels = np.array([3, 9, 0, 5])
weights = np.array([1.0, 1.0, 0.0, 1.0])

L = keras.layers
net = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.Conv2D(64, 3, activation="relu"),
                        L.MaxPool2D(2), L.Flatten(), L.Dense(10)])
net.set_weights(cut(params))
with tf.GradientTape() as tape:
    logits = net(tf.constant(images.reshape(4, 28, 28, 1) / 255.0))
    loss = tf.reduce_sum(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
grads = [g.numpy() for g in tape.gradient(loss, net.trainable_variables)]
correct = float(np.sum((np.argmax(logits.numpy(), 1) == labels) * weights))

adam = keras.optimizers.Adam(1e-3)
adam.build(net.trainable_variables)
adam.iterations.assign(4)
for slot, m, v in zip(range(len(SHAPES)), cut(m0), cut(v0)):
    adam._momentums[slot].assign(m)
    adam._velocities[slot].assign(v)
adam.apply_gradients([(tf.constant(g / 3), w) for g, w in zip(grads, net.trainable_variables)])

out = [loss.numpy(), correct, *logits.numpy().ravel()]
for tensors in (grads, [w.numpy() - p for w, p in zip(net.trainable_variables, cut(params))],
                [m.numpy() for m in adam._momentums], [v.numpy() for v in adam._velocities]):
    for t in tensors:  # norm, sum and about 512 elements of each
        t = t.ravel()
        out += [np.linalg.norm(t), t.sum(), *t[::max(1, t.size // 512)]]
np.array(out, "<f8").tofile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference.bin"))
print("values", len(out), "loss", out[0], "correct", correct)
