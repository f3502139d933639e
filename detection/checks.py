def check_dataset(cfg):
    pass
