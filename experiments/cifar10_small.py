"""CIFAR-10, Linf eps 8/255: a few epochs of PGD-AT on a narrow PreActResNet-18, untuned.

Command:   python experiments/cifar10_small.py --data-dir DIR    (DIR: prepared TFDS sets)
Hardware:  two CPU cores, under an hour. Proof that the whole path runs on real images, not a
           contender: the width is an eighth of the usual one, the training a fiftieth.
Expected:  no published counterpart; see results/cifar10-pgd-10-width-8.json.
"""

from runner import parser, reproduce

ROWS = {
    "cifar10-pgd-10-width-8": (
        "pgd-at --data cifar10 --model preact-resnet-18 --width 8 --epochs 2 --batch-size 128 "
        "--lr 0.2 --schedule one-cycle --checkpoint-every 100",
        "--attacks fgsm mi-fgsm-20 pgd-20 pgd-50x5 autoattack --n 1000 --curve pgd-10",
    )
}

if __name__ == "__main__":
    reproduce(ROWS, parser(__doc__).parse_args())
