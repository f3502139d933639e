# Data of one's own, from scratch: recipe `small` with the size of images, the smallest anchors and the number of
# epochs that suit the data (onebit.detection.adapting says how).
_base_ = "./small.py"

threads = None
# Images that are trained on in all, and the least and the most epochs; the largest longer side in pixels; anchors,
# whose sides on the finest map are four times a scale.
adapt = dict(images=8192, epochs=(12, 100), side=320, scales=(2, 4, 8))
