"""The network of lenet.rs in PyTorch, with the same weights, order, batches and rate, to compare with.

    cargo run --release -p convgen-nn --example lenet -- --epochs 0 --save initial.npz
    python3 examples/lenet_torch.py --load initial.npz --data DIR --epochs 1 --save trained.npz

prints the lines that `lenet --data DIR --epochs 1` prints. Needs numpy and torch.
"""

import argparse
import gzip
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MASK = (1 << 64) - 1


class Generator:
    """convgen::nn::Generator: SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def bits(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        bits = self.state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        return bits ^ (bits >> 31)

    def shuffle(self, items):
        for last in range(len(items) - 1, 0, -1):
            other = (self.bits() * (last + 1)) >> 64
            items[last], items[other] = items[other], items[last]


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(256, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc3(functional.relu(self.fc2(x)))


def read(directory, part):
    """Images and labels of a part of the set."""

    def array(name, head):
        path = os.path.join(directory, f"{part}-{name}-ubyte")
        opened = open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz")
        with opened as file:
            return np.frombuffer(file.read(), np.uint8)[head:]

    images = array("images-idx3", 16).astype(np.float32) / np.float32(255.0)
    labels = array("labels-idx1", 8).astype(np.int64)
    return torch.from_numpy(images.reshape(-1, 1, 28, 28)), torch.from_numpy(labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--load", help="initial weights, .npz")
    parser.add_argument("--save", help="trained weights, .npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--double", action="store_true", help="in 64 bits: what rounding does")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    network = LeNet()
    if options.load:
        weights = np.load(options.load)
        network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    images, labels = read(options.data, "train")
    test_images, test_labels = read(options.data, "t10k")
    if options.double:
        network, images, test_images = network.double(), images.double(), test_images.double()
    print(f"{len(labels)} digits to learn, {len(test_labels)} to test")
    sgd = torch.optim.SGD(network.parameters(), lr=options.rate, momentum=options.momentum)
    order = list(range(len(labels)))
    generator = Generator(options.seed)
    for epoch in range(1, options.epochs + 1):
        generator.shuffle(order)
        batches = torch.tensor(order).split(options.batch)
        losses = []
        start = time.perf_counter()
        for batch in batches:
            sgd.zero_grad()
            loss = functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            sgd.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
        with torch.no_grad():
            right = (network(test_images).argmax(1) == test_labels).double().mean().item()
        mean = sum(losses) / len(losses)
        print(f"epoch {epoch:2}  loss {mean:.5f}  accuracy {100 * right:.2f} %  {seconds:.3f} s")
    if options.save:
        np.savez(options.save, **{k: v.numpy() for k, v in network.state_dict().items()})


if __name__ == "__main__":
    main()
