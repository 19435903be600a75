"""Runs the test cases of ONNX for `Conv` and `ConvTranspose` through `convgen run`.

Needs the package `onnx`: pip install onnx; cargo build --release; python onnx/tests/node_tests.py

The cases are those of the package: the node tests, made by its generators, and the models with data
that were converted from PyTorch. convgen reads the problem from the model with its own reader; the
output must be the expected one within the tolerance that ONNX states for the case. What is another
operator is listed as skipped. Exits with 1 if a case fails, or if there is none.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPERATORS = {"Conv", "ConvTranspose"}
OTHER = {
    "ConvInteger": "an operator on 8-bit integers",
    "QLinearConv": "an operator on quantised integers",
    "DeformConv": "a gather at computed positions, no convolution with fixed taps",
    "CausalConvWithState": "a stateful operator of opset 27 with two outputs",
}


class Case:
    """A model, its inputs by name, and what must come out."""

    def __init__(self, name, model, tests, inputs, expected):
        self.name, self.model, self.expected = name, model, expected
        self.rtol, self.atol = tests.rtol, tests.atol
        self.values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        given = [i.name for i in model.graph.input if i.name not in self.values]
        self.values |= dict(zip(given, inputs))

    def run(self, convgen, folder):
        """None if the output is as expected, or else what is wrong."""
        node = self.model.graph.node[0]
        onnx.save(self.model, folder / "model.onnx")
        command = [convgen, "run", "--model", folder / "model.onnx", "--output", folder / "y.npy"]
        for flag, name in zip(["--input", "--weights", "--bias"], node.input):
            np.save(folder / f"{flag[2:]}.npy", self.values[name].astype("<f4"))
            command += [flag, folder / f"{flag[2:]}.npy"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return done.stderr.strip()
        try:
            given = np.load(folder / "y.npy")
            np.testing.assert_equal(given.shape, self.expected.shape)
            np.testing.assert_allclose(given, self.expected, rtol=self.rtol, atol=self.atol)
        except (AssertionError, OSError, ValueError) as error:
            return str(error).strip()
        return None


def node_cases():
    with warnings.catch_warnings():
        # The generators of other operators divide by zero on purpose.
        warnings.simplefilter("ignore")
        tests = collect_testcases(None)
    for test in tests:
        if "conv" not in test.name:
            continue
        ops = [node.op_type for node in test.model.graph.node]
        for number, (inputs, outputs) in enumerate(test.data_sets):
            name = test.name if number == 0 else f"{test.name}/{number}"
            yield name, ops, lambda: Case(name, test.model, test, inputs, outputs[0])


def model_cases():
    for kind in ["pytorch-converted", "pytorch-operator"]:
        for test in load_model_tests(kind=kind):
            if "conv" not in test.name.lower():
                continue
            folder = pathlib.Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            ops = [node.op_type for node in model.graph.node]
            for data in sorted(folder.glob("test_data_set_*")):
                inputs = [tensor(path) for path in sorted(data.glob("input_*.pb"))]
                expected = tensor(data / "output_0.pb")
                yield test.name, ops, lambda: Case(test.name, model, test, inputs, expected)


def tensor(path):
    return numpy_helper.to_array(onnx.load_tensor(path))


def skipped(ops):
    """Why a graph is none of this script's, if so."""
    if len(ops) == 1:
        return None if ops[0] in OPERATORS else OTHER.get(ops[0], f"the operator {ops[0]}")
    return f"a graph of {len(ops)} nodes, not one convolution"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--convgen", default=ROOT / "target/release/convgen", type=pathlib.Path)
    convgen = parser.parse_args().convgen
    passed, failed, left_out = 0, 0, 0
    print(f"onnx {onnx.__version__}")
    for cases in [node_cases(), model_cases()]:
        for name, ops, case in cases:
            reason = skipped(ops)
            if reason:
                print(f"skipped {name}: {reason}")
                left_out += 1
                continue
            with tempfile.TemporaryDirectory() as folder:
                fault = case().run(convgen, pathlib.Path(folder))
            print(f"passed  {name}" if fault is None else f"FAILED  {name}: {fault}")
            passed, failed = passed + (fault is None), failed + (fault is not None)
    print(f"{passed} of {passed + failed} passed, {left_out} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
