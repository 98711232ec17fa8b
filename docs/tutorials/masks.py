# %% [markdown]
# # Masks
#
# In segmentation, the network names the class of each pixel. After this tutorial you can train
# such a network, read the IoU of each class and draw predicted masks.
#
# The scenes here are generated in code, with five classes. The last section does the same with
# SceneParse150.

# %%
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

import thaw

# %% [markdown]
# ## Train
#
# The experiment trains a small SegFormer from random weights.

# %%
run = thaw.train(
    "experiment=sample_scenes",
    "data.rows={train: 300, val: 60, test: 60}",
    "trainer.max_epochs=12",
)
run

# %%
history = run.history
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(history["epoch"], history["train/loss"], marker="o", label="train")
left.plot(history["epoch"], history["val/loss"], marker="o", label="val")
left.set(xlabel="epoch", ylabel="loss")
left.legend()
right.plot(history["epoch"], history["val/miou"], marker="o", color="tab:green")
_ = right.set(xlabel="epoch", ylabel="mean IoU of validation")

# %% [markdown]
# ## The IoU of each class
#
# The IoU of a class is the overlap of its predicted and its labelled pixels, divided by their
# union. It is computed once, over all test images together.

# %%
pd.DataFrame(run.metrics["test"]["per_class"]).T.round(3)

# %% [markdown]
# ## Predict masks
#
# The datamodule brings the test images with their masks. `predict` returns the mask of each
# image.

# %%
data = thaw.SampleScenesDataModule(rows={"train": 300, "val": 60, "test": 60})
data.setup("test")
batch = next(iter(data.test_dataloader()))
pixels = batch["pixel_values"][:4].permute(0, 2, 3, 1).numpy()
images = [Image.fromarray(image) for image in pixels]
masks = run.predict(images)

# %%
figure, axes = plt.subplots(3, 4, figsize=(7, 5.4), layout="constrained")
for column, (image, label, mask) in enumerate(zip(images, batch["labels"], masks)):
    for row, (title, picture) in enumerate(
        (("image", image), ("label", label), ("prediction", mask))
    ):
        axes[row, column].imshow(picture, cmap="tab10", vmin=0, vmax=9)
        axes[row, column].set_title(title, fontsize=9)
        axes[row, column].axis("off")

# %% [markdown]
# ## With SceneParse150
#
# - `thaw train experiment=beit_scene_parse` fine-tunes a BEiT with UPerNet on 20,210 images
#   with 150 classes. It needs a GPU.
# - `thaw train data=segmentation data.folder=FOLDER` trains on your own images and masks.
