# Data of one's own, from scratch: recipe `small` with the size of images, the smallest anchors and the number of
# epochs that suit the data (onebit.detection.adapting says how).
_base_ = "./small.py"

threads = None
# Images that are trained on in all, and the least and the most epochs; the largest longer side in pixels.
adapt = dict(images=8192, epochs=(12, 100), side=320)
# The option of the smallest anchors, and its choices by their side in pixels. FCOS has no anchors.
of_detector = dict(
    faster_rcnn=dict(
        adapt=dict(
            anchors=dict(option="model.rpn_head.anchor_generator.scales", choices=[(8, [2]), (16, [4]), (32, [8])])
        )
    ),
    retinanet=dict(
        adapt=dict(
            anchors=dict(
                option="model.bbox_head.anchor_generator.octave_base_scale", choices=[(8, 1), (16, 2), (32, 4)]
            )
        )
    ),
)
