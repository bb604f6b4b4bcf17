"""Lay the recorded anomaly sets out as CSV for tests/accuracy.rs.

Training rows are made by the data directory's own make_anomalies.py: the training blocks of both
rooms, with anomalies injected from 12 seeds (from --first on), each on a base that is shifted and
scaled a little. Test rows are the recorded ones. Written are {raw4,win16}.{train,test}.csv.

usage: prepare.py DATA OUT [--first N]        (needs numpy; DATA is only read)
"""
import argparse
import csv
import gzip
import pathlib
import sys

import numpy as np


def write(path, names, rows, labels):
    with open(path, "w") as out:
        out.write(",".join(names) + ",label\n")
        for row, label in zip(rows.astype(np.float32).tolist(), labels):
            # Nine digits give the float32 back exactly.
            values = ",".join("%.9g" % v for v in row)
            out.write(f"{values},{'anomalous' if label else 'normal'}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(options.data))
    import make_anomalies as made

    data, train, test = options.data, [], []
    for occupancy, sound in (("datatraining", "S1"), ("datatest", "S2")):
        for seed in range(options.first, options.first + 12):
            built = made.build(
                f"{data}/occupancy/{occupancy}.csv.gz",
                f"{data}/rooms/rooms_s1_s2.csv.gz",
                sound,
                seed,
                vary=True,
            )
            rows, labels = built[3], built[4]
            keep = ~made.is_test(len(rows))
            train.append((rows[keep], made.features16(rows)[keep], labels[keep]))
    for node in ("node_a", "node_b"):
        with gzip.open(f"{data}/anomalies/{node}.csv.gz", "rt", newline="") as file:
            records = list(csv.DictReader(file))
        rows = np.array([[float(r[c]) for c in made.CHANNELS] for r in records])
        keep = np.array([r["split"] == "test" for r in records])
        labels = np.array([int(r["label"]) for r in records])
        test.append((rows[keep], made.features16(rows)[keep], labels[keep]))
    for part, sets in (("train", train), ("test", test)):
        raw, windows, labels = (np.concatenate(s) for s in zip(*sets))
        write(options.out / f"raw4.{part}.csv", made.CHANNELS, raw, labels)
        write(options.out / f"win16.{part}.csv", made.FEATURES16, windows, labels)


main()
