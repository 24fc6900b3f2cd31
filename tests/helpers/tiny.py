"""A network small enough for a test, as a recipe's section; its backbone is one that timm has for tests."""

NETWORK = """[network]
tower = "test_resnet"
weights = ""
height = 64
width = 96
embedding = 16
pyramid = 16
features = 8
text_width = 32
text_layers = 1
policy = 8
"""
