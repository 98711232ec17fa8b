# %% [markdown]
# # CIFAR-10 images
#
# A network looks at a small picture and names one of ten classes. After this tutorial you can
# train such a network, draw its confusion matrix and predict new images.
#
# The pictures here are generated in code: ten kinds of shapes and textures. The last section
# does the same with CIFAR-10 and a pretrained network.

# %%
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import thaw

# %% [markdown]
# ## Look at the data
#
# A datamodule of Thaw is an ordinary one of Lightning. A batch has the pixels, the labels and
# the number of each image in its split.

# %%
data = thaw.SampleImagesDataModule(rows={"train": 1000, "val": 250, "test": 250})
data.setup("fit")
batch = next(iter(data.val_dataloader()))
print(batch["pixel_values"].shape, batch["labels"][:8])

# %%
figure, axes = plt.subplots(1, 8, figsize=(8, 1.4), layout="constrained")
for axis, pixels, label in zip(axes, batch["pixel_values"], batch["labels"]):
    axis.imshow(pixels.permute(1, 2, 0))
    axis.set_title(data.class_names[label], fontsize=9)
    axis.axis("off")

# %% [markdown]
# ## Train
#
# `plan=true` on the command line shows what would be trained. Here a small ResNet trains from
# random weights.

# %%
run = thaw.train(
    "experiment=sample_images",
    "data.rows={train: 1000, val: 250, test: 250}",
    "trainer.max_epochs=4",
)
run

# %%
run.history[["epoch", "train/loss", "val/loss", "val/acc"]].round(3)

# %% [markdown]
# ## The confusion matrix
#
# `metrics` has the confusion matrix of the test split: a row for each label, a column for each
# predicted class.

# %%
matrix = np.array(run.metrics["test"]["confusion_matrix"])
figure, axes = plt.subplots(figsize=(5, 4.4), layout="constrained")
axes.imshow(matrix, cmap="Blues")
axes.set_xticks(range(10), data.class_names, rotation=60)
axes.set_yticks(range(10), data.class_names)
axes.set(xlabel="predicted", ylabel="label")
for row, column in zip(*matrix.nonzero()):
    count = matrix[row, column]
    axes.text(column, row, count, ha="center", va="center", color="darkorange")

# %% [markdown]
# ## Predict new images
#
# `predict` takes PIL images, arrays or paths. This one is a new drawing of a square. It stands
# on a corner, as the squares of the training images do.

# %%
rows, columns = np.mgrid[:32, :32]
radius = 11
inside = abs(rows - 15.5) + abs(columns - 15.5) <= radius
pixels = np.where(inside[..., None], (40, 90, 160), (230, 230, 230)).astype(np.uint8)
run.predict([Image.fromarray(pixels)])

# %% [markdown]
# ## With CIFAR-10
#
# - `thaw train experiment=cifar10_deit` trains the last block of a pretrained DeiT and a new
#   head. Data and network come from the Hugging Face Hub, and a GPU needs a few minutes.
# - `thaw train experiment=cifar10_resnet_scratch` trains a small ResNet from random weights. It
#   reached a test accuracy of 0.886 in 23 minutes on two CPU cores.
# - `thaw train data=image data.folder=FOLDER` trains on your own images.
