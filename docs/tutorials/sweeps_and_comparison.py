# %% [markdown]
# # Sweeps and comparison
#
# One run with one seed is one sample. After this tutorial you can repeat a run with several
# seeds, compare two configurations with an exact test, and search parameters.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import thaw

# %% [markdown]
# ## A sweep
#
# `-m` trains each combination of values. Each job has its own run folder. At the end Thaw
# prints a table and writes the page `sweep.html`, in which seeds form one row: their mean and its
# 95 % interval. Here a frozen network with random weights is compared with one that trains.

# %% language="bash"
# thaw train -m model.freeze_backbone=true,false seed=1,2,3 trainer.max_epochs=3 \
#   "data.rows={train: 800, val: 250, test: 500}" 2> log.txt | tail -n 12

# %% [markdown]
# `sweep.csv` has a row for each job.

# %%
(sweep,) = Path("runs/sweeps").glob("*/*")
table = pd.read_csv(sweep / "sweep.csv")
table[["job", "model.freeze_backbone", "seed", "val/acc", "test/acc"]]

# %%
figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
axes.plot(table["model.freeze_backbone"].astype(str), table["test/acc"], "o")
axes.set(xlabel="model.freeze_backbone", ylabel="test accuracy")
axes.set_title("a point for each seed")
axes.margins(0.4, 0.2)

# %% [markdown]
# ## Compare two runs
#
# Both runs predicted the same test texts. The page of the comparison says on how many texts
# they differ, and whether that may be chance (exact McNemar test).

# %%
frozen, trained = thaw.Run(sweep / "0"), thaw.Run(sweep / "3")
thaw.compare(frozen, trained, output="comparison.html")

# %%
first, second = frozen.predictions(), trained.predictions()
pd.crosstab(
    first["label"] == first["prediction"],
    second["label"] == second["prediction"],
    rownames=["frozen correct"],
    colnames=["trained correct"],
)

# %% [markdown]
# ## Search
#
# `hydra/sweeper=optuna` searches instead of trying every combination. The search maximises the
# metric of the validation split. A metric of the test split cannot be its objective.

# %% language="bash"
# thaw train -m name=search hydra/sweeper=optuna hydra.sweeper.n_trials=3 \
#   "model.lr=tag(log,interval(1e-4,1e-2))" trainer.max_epochs=1 \
#   "data.rows={train: 300, val: 200, test: 200}" 2> log.txt | tail -n 9

# %% [markdown]
# The page `sweep.html` in the folder of the sweep has the best trial and the importance of each
# parameter.
#
# ## With real data
#
# - `thaw train -m experiment=minilm_feature,minilm_bigru_feature 'seed=range(5)'` compares two
#   heads on the tweets. The frozen network runs once for each head, and the jobs read its
#   stored features.
# - `thaw train -m experiment=minilm_bigru_feature sweep=bigru_head` searches the head's size
#   and learning rate. `configs/sweep/bigru_head.yaml` has the search space.
