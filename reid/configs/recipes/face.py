"""Face verification: BNAS's learning rate and batches (its section on faces); the rest ours.

The paper gives a learning rate of 0.05 and batches of 400 for its search on CASIA-WebFace, and else
refers to its CIFAR settings: SGD with momentum and a cosine. 112x112 is the field's customary size.
Images are resized, not aligned: align training and test images alike before.
"""

_base_ = "paper.py"

height, width = 112, 112

model = dict(neck="bn", feature_dim=512)
epochs = 30
optimizer = dict(weight_decay=5e-4)
label_smooth = False
data = dict(transforms=["random_flip"], batch_size_train=400)
evaluation = dict(distance="cosine")
flip_features = True
