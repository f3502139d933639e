"""Architecture search: DCP-NAS, CP-NAS, BNAS, ABanditNAS, DARTS, PC-DARTS and random search.

space         edges, operations and size of what is searched
supernet      every operation on every edge, real-valued Parent or 1-bit Child
mixture       the weighted sum that makes a node
depthwise     depthwise convolution with a fast gradient on CPUs
architecture  architecture parameters
curvature     products with the curvature of the Child's loss: fisher, ggn, hessian
straight_through  1-bit networks that can be differentiated twice
discrepancy   between the architecture gradients of Parent and Child
decoupling    the decoupled optimization of DCP-NAS
reconstruction  the reconstruction error of the Child
diagnosis     what often goes wrong, told by the search's own numbers
strategies    the methods, one class each
"""
