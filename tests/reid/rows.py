"""Options that make a row of re-ID small."""

OPTIONS = {"epochs": 3, "height": 64, "width": 32, "data.batch_size_train": 16, "data.batch_size_test": 32}

TRIPLET = {**OPTIONS, "model.loss": "triplet", "data.num_instances": 4}
