"""Holds the reader's shapes and constants against the test cases of ONNX for its operators.

    python onnx/tests/op_shapes.py [--only TEXT] [--unknown]

Needs the package `onnx`: pip install onnx. Each case is a model of one operation, with inputs and
what must come out. Behind it stand convolutions whose widths are the sizes of the output plus one, or
its elements plus one, so that what the reader says of them is what it knows: once with only the whole
numbers of the inputs as constants, for the shapes, and once with all inputs. Exits with 1 if anything
that it says is wrong, or a model is refused. What it does not know is counted by operation.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Sizes of these depend on the values that go in, which are no constants in the first round.
ELEMENTS = 40


class Probe:
    """Convolutions behind the outputs of a model, and their widths."""

    def __init__(self, model, inputs, constant):
        self.model = onnx.ModelProto.FromString(model.SerializeToString())
        self.graph, self.widths, self.count = self.model.graph, {}, 0
        # Its operations were not always what they are; those of the probe always were.
        given = [i for i in self.graph.input]
        del self.graph.input[:]
        for info, value in zip(given, inputs):
            if constant(info, value):
                self.graph.initializer.append(numpy_helper.from_array(value, info.name))
                continue
            fixed = helper.make_tensor_value_info(
                info.name, info.type.tensor_type.elem_type, value.shape
            )
            self.graph.input.append(fixed)
        self.weights = self.constant(np.zeros([1, 1, 1], np.float32))
        self.two, self.one = self.constant(np.array([1, 1])), self.constant(np.array([1]))

    def constant(self, value):
        self.count += 1
        name = f"probe_c{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op, *inputs, name="", **attributes):
        self.count += 1
        out = f"probe_v{self.count}"
        self.graph.node.append(helper.make_node(op, list(inputs), [out], name=name, **attributes))
        return out

    def width(self, name, list_of_one, expected):
        shape = self.op("Concat", self.two, self.op("Add", list_of_one, self.one), axis=0)
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0])
        self.op("Conv", self.op("ConstantOfShape", shape, value=zero), self.weights, name=name)
        self.widths[name] = int(expected) + 1

    def shape(self, output, value):
        shape = self.op("Shape", output)
        self.width(f"rank of {output}", self.op("Shape", shape), value.ndim)
        for axis, size in enumerate(value.shape):
            one = self.op("Gather", shape, self.constant(np.array([axis])), axis=0)
            self.width(f"size {axis} of {output}", one, size)

    def elements(self, output, value):
        flat = np.asarray(value).reshape(-1)
        if value.dtype.kind not in "iufb" or not 0 < flat.size <= ELEMENTS:
            return
        if value.dtype.kind == "f":
            if value.dtype not in (np.float32, np.float64) or not (flat == np.floor(flat)).all():
                return
        if not ((flat >= 0) & (flat < 1000)).all():
            return
        whole = self.op("Cast", output, to=TensorProto.INT64)
        whole = self.op("Reshape", whole, self.constant(np.array([-1])))
        for i, element in enumerate(flat):
            one = self.op("Gather", whole, self.constant(np.array([i])), axis=0)
            self.width(f"element {i} of {output}", one, element)


def read(model, reader):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        done = subprocess.run([reader, path], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        return [{"error": f"exit code {done.returncode}: {done.stderr[-300:]}"}]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(model, inputs, outputs, reader, constant, with_elements):
    """What is right, not known and wrong of a case."""
    probe = Probe(model, inputs, constant)
    for info, value in zip(model.graph.output, outputs):
        if isinstance(value, np.ndarray):
            probe.shape(info.name, value)
            if with_elements:
                probe.elements(info.name, value)
    right, unknown, wrong = [], [], []
    for line in read(probe.model, reader):
        if "error" in line:
            return [], [], [line["error"]]
        expected = probe.widths.get(line["name"])
        if expected is None:
            continue
        if "reason" in line:
            unknown.append((line["name"], line["reason"]))
        elif line["input"][2] == expected:
            right.append(line["name"])
        else:
            wrong.append(f"{line['name']} is {line['input'][2] - 1}, not {expected - 1}")
    return right, unknown, wrong


def whole(info, value):
    return value.dtype.kind in "iub" and value.size <= 64


def cases():
    with warnings.catch_warnings():
        # The generators of some operators divide by zero on purpose.
        warnings.simplefilter("ignore")
        tests = collect_testcases(None)
    for test in tests:
        inputs, outputs = test.data_sets[0]
        if all(isinstance(value, np.ndarray) for value in inputs):
            yield test.name, test.model, inputs, outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reader", type=pathlib.Path, help="the example `list`, if it is built")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--unknown", action="store_true", help="print what is not known")
    arguments = parser.parse_args()
    reader = arguments.reader
    if reader is None:
        build = ["cargo", "build", "--quiet", "-p", "convgen-onnx", "--example", "list"]
        subprocess.run(build, check=True, cwd=ROOT)
        metadata = ["cargo", "metadata", "--no-deps", "--format-version=1"]
        done = subprocess.run(metadata, check=True, cwd=ROOT, capture_output=True)
        reader = pathlib.Path(json.loads(done.stdout)["target_directory"]) / "debug/examples/list"
    counts, missing, failed, passed = collections.Counter(), collections.Counter(), 0, 0
    for name, model, inputs, outputs in cases():
        if arguments.only not in name:
            continue
        rounds = [(whole, False), (lambda info, value: True, True)]
        problems = []
        for number, (constant, with_elements) in enumerate(rounds):
            right, unknown, wrong = check(model, inputs, outputs, reader, constant, with_elements)
            counts.update(right=len(right), unknown=len(unknown), wrong=len(wrong))
            problems += wrong
            shapes = [name for name, _ in unknown if not name.startswith("element")]
            for key in ({model.graph.node[0].op_type} if shapes else set()):
                missing[key] += 1
            if arguments.unknown:
                for which, reason in unknown:
                    print(f"unknown {name}, {which}: {reason}")
        for problem in problems:
            print(f"FAILED {name}: {problem}")
        failed, passed = failed + bool(problems), passed + (not problems)
    print(f"onnx {onnx.__version__}: {dict(counts)} sizes and elements")
    print("shapes not known: " + ", ".join(f"{op} {n}" for op, n in missing.most_common()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
