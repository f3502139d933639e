"""Floor 3: image classification on mmengine's Runner.

runner    trains and scores one row
config    from a job to the complete config
datasets  CIFAR's files, folders of images; small ones held in memory
model     a backbone with a classifier, and its augmentation on the training device
metrics   top-k accuracy
predictions  the leading classes of every scored image, kept with the row
cells_table  the table of trained 1-bit cells; read without torch
"""
