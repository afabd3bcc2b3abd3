"""Options of a short training in which the ranks together do what one process does with the joined batch."""

# One step an epoch on the joined batch of 2 x 12, so that the lines of metrics.jsonl are the steps. A transformer, as
# BatchNorm's statistics are those of a rank, and pixels without randomness, which a rank draws for itself.
STEPS = {
    "epochs": 4,
    "model__name": "deit_tiny",
    "model__image_size": 32,
    "augment__eval_resize": 32,
    "augment__crop": "none",
    "augment__flip": 0,
    "optimizer__lr": 0.0003,
    "accumulate": 2,
    "ema": 0.5,
    "diagnostics": 1,
}
