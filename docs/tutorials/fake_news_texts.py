# %% [markdown]
# # Fake-news texts
#
# A network reads a statement and says whether it is fake or real. After this tutorial you can
# train such a network from Python, read its metrics, find its mistakes and predict new texts.
#
# The statements are generated in code, so everything here runs offline, in a minute on a CPU.
# The last section does the same with tweets and a pretrained network.

# %%
import matplotlib.pyplot as plt

import thaw

# %% [markdown]
# ## Train
#
# `thaw.train` takes the overrides of `thaw train`, and returns the finished run. Without
# overrides it trains a small BERT with a BiGRU head from random weights.

# %%
run = thaw.train("trainer.max_epochs=4")
run

# %% [markdown]
# The run folder has everything that the run did: config, metrics, predictions, checkpoints, and
# the page `report.html`.

# %%
sorted(path.name for path in run.folder.iterdir())

# %% [markdown]
# ## Read the metrics
#
# The best epoch was chosen on the validation split. The test split was used once, at the end.

# %%
{name: run.metrics["test"][name] for name in ("n", "acc", "f1_macro", "loss")}

# %% [markdown]
# `history` has a row for each epoch.

# %%
history = run.history
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axes, metric in ((left, "loss"), (right, "acc")):
    for split in ("train", "val"):
        values = history[f"{split}/{metric}"]
        axes.plot(history["epoch"], values, marker="o", label=split)
    axes.set(xlabel="epoch", ylabel=metric)
    axes.legend()

# %% [markdown]
# ## Look at the mistakes
#
# `predictions()` has a row for each test text: its label, the predicted class and the
# probability of each class. `label` and `prediction` are names of classes. Three percent of
# the generated labels are wrong, so a good network also has mistakes of high probability.

# %%
table = run.predictions()
wrong = table[table["label"] != table["prediction"]]
print(f"{len(wrong)} of {len(table)} texts are wrong")
wrong.head()

# %% [markdown]
# The probabilities should agree with the accuracy. Here the texts are grouped by the
# probability of the predicted class.

# %%
probabilities = table.filter(like="probability")
confidence = probabilities.max(axis=1)
correct = table["label"] == table["prediction"]
right_share = correct.groupby(confidence.round(1)).mean()
figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
axes.plot([0.5, 1], [0.5, 1], "--", color="grey", label="calibrated")
axes.plot(right_share.index, right_share, marker="o", label="this run")
axes.set(xlabel="probability of the predicted class", ylabel="share of correct texts")
_ = axes.legend()

# %% [markdown]
# ## Predict new texts
#
# In these data, the source and the verb decide whether a statement is real.

# %%
run.predict(
    [
        "The weather service measured that at the north lake the ice melts since 3 days",
        "A viral video swears that at the old bridge the ice holds at 20 degrees",
    ]
)

# %% [markdown]
# ## With real tweets
#
# The same steps work with the tweets of Constraint@AAAI2021 and a pretrained MiniLM. The data
# and the network come from the Hugging Face Hub. On two CPU cores the run takes about ten
# minutes, and on a GPU one.
#
# - `thaw train experiment=minilm_bigru_feature` trains a BiGRU on the frozen network. The
#   features of the tweets are computed once.
# - `thaw train experiment=minilm_bigru_finetune` trains all weights. It reached a test accuracy
#   of 0.979 on the 1070 test tweets at hand.
# - `thaw train data=text data.folder=FOLDER` trains on your own texts.
