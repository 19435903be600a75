#!/usr/bin/env python3
"""Writes a table of layers as convgen's descriptors, one a line: the list that `convgen tune --file -` reads.

Reads the layers.json that the comparison with other libraries uses (by default /work/shared/peers/layers.json, which
is no part of this repository). Transposed convolutions are left out.

  tests/peer_layers.py | convgen tune --file - --survey 60 --budget 2s
"""
import json
import sys

AXES = {1: "w", 2: "hw", 3: "dhw"}


def word(letter, axis, value):
    return f"{letter}{axis}{value}"


def descriptor(layer):
    axes = AXES[layer["nd"]]
    words = [f"conv{layer['nd']}d", f"n{layer['n']}", f"g{layer['g']}", f"ic{layer['ic']}", f"oc{layer['oc']}"]
    for letter, field, default in (("i", "inp", None), ("k", "k", None), ("s", "s", 1), ("d", "d", 1)):
        words += [word(letter, a, v) for a, v in zip(axes, layer[field]) if v != default]
    for a, before, after in zip(axes, layer["pb"], layer["pe"]):
        if (before, after) != (0, 0):
            words.append(f"p{a}{before}" if before == after else f"p{a}{before}:{after}")
    if layer["bias"]:
        words.append("bias")
    if layer["relu"]:
        words.append("| relu")
    return f"{' '.join(words)} \"{layer['name']}\""


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "/work/shared/peers/layers.json"
    with open(path, encoding="utf-8") as file:
        layers = json.load(file)
    for layer in layers:
        if layer["kind"] == "conv":
            print(descriptor(layer))


main()
