# The training of the paper that the board repeats: DCP-NAS, section 4.1.3.
_base_ = "./dcp_nas_cifar10.py"

# On these boards the recipe means another file.
boards = dict(imagenet="dcp_nas_imagenet")
