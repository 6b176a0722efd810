"""The Hugging Face Trainer, fed from the device, told about groups and methods, and run the fast way where that can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from scipy.special import softmax
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, WeightedRandomSampler
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from fairtune_hf.baselines.method import Method, ParameterGroup, Stage
from fairtune_hf.training.argument_rules import refuse_ignored
from fairtune_hf.training.callbacks import BetweenSteps, RefuseDiverged
from fairtune_hf.training.cost import CostMeter, Operations, count_operations
from fairtune_hf.training.dataset import ImageDataset, collate_batch
from fairtune_hf.training.fast_forward import FastForward
from fairtune_hf.training.graphs import GraphedModel
from fairtune_hf.training.method_turns import AskMethod, set_apart
from fairtune_hf.training.quick_steps import KnownModules, PlainOptimizer
from fairtune_hf.training.sharding import share_rows
from fairtune_hf.training.tracking import add_tracking
from fairtune_hf.training.training_auc import FittedScores
from fairtune_hf.training.trial_trainer import TrialTrainer


class FairTrainer(TrialTrainer):
    """Trainer over `ImageDataset` whose batches carry the group code beside the label.

    Args:
        class_weights: One weight a class for the cross entropy; the loss is the mean of weight times
            cross entropy over the batch, not divided by the sum of the weights.
        method: What is done beside plain fine-tuning: its loss, its drawing of rows, its last step.
        compile_blocks: Compile the transformer blocks where they run in bf16 on a GPU; see
            `FitArguments.compiles` for when that pays.
        cost: Where to add what the training costs; that of another stage of the same training.
        **kwargs: Everything `transformers.Trainer` takes.

    Raises:
        ValueError: A field of `args` that this Trainer would not honour is set.
    """

    def __init__(
        self,
        *,
        class_weights: tuple[float, float] | None = None,
        method: Method | None = None,
        compile_blocks: bool = False,
        cost: CostMeter | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("data_collator", collate_batch)
        if kwargs.get("compute_metrics") is not None:
            kwargs["compute_metrics"] = RefuseDiverged(kwargs["compute_metrics"])
        if kwargs.get("args") is not None:
            refuse_ignored(kwargs["args"])
            _use_one_gpu(kwargs["args"])
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # a method's loss is the mean of its own batch
        self.remove_callback(PrinterCallback)
        add_tracking(self)
        self.method = method or Method()
        self._stage: Stage | None = None
        self._own_weight_decay = self.args.weight_decay
        self.add_callback(AskMethod(self))
        self._class_weights = None if class_weights is None else torch.tensor(class_weights)
        self._compile_blocks = compile_blocks
        self._prepared: nn.Module | None = None
        self._operations: Operations | None = None
        self._graphed: GraphedModel | None = None
        self._known: KnownModules | None = None
        self._is_first_pass = True
        self.parameter_groups: Sequence[ParameterGroup] = ()
        self.cost = cost or CostMeter(
            self.args.device,
            processes=self.args.world_size,
            settings={
                "precision": "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32",
                "compiled": compile_blocks and self._runs_fast,
            },
        )
        for dataset in (self.train_dataset, self.eval_dataset):
            if isinstance(dataset, ImageDataset):
                dataset.to(self.args.device)
        augmented = self.train_dataset if isinstance(self.train_dataset, ImageDataset) else None
        if augmented is not None:
            self.fitted = FittedScores(augmented.groups)
        self.add_callback(BetweenSteps(self.cost, augmented))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The method's loss, cross entropy of the label by default; the group code never reaches the model."""
        training = torch.is_grad_enabled()
        self._prepare_model()
        if training:
            self.cost.clock.mark("forward")
        loss = self._compute_loss(model, inputs, return_outputs)
        if training:
            self.cost.clock.mark("backward")
        counted = self._operations
        done = None
        if counted is not None:
            done = counted.training if training else counted.evaluation
        self.cost.count(len(inputs["labels"]), done, training=training)
        return loss

    def _compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool
    ) -> Any:
        graphed: Any = self._graphed
        if graphed is not None and graphed.model is model:
            model = graphed
        loss, outputs = self.method.compute_loss(model, inputs, self._class_weights)
        wanted = self._is_first_pass and self.hp_search_backend is not None
        if self.fitted is not None and wanted and torch.is_grad_enabled():
            self.fitted.note(outputs.logits, inputs["labels"], inputs["group"])
        if not return_outputs:
            return loss
        return loss, {"loss": loss, "logits": outputs.logits}

    def use_stage(self, stage: Stage) -> None:
        """Train a stage of a method from the next `train` on, at the stage's own settings."""
        self.method, self._stage = stage.method, stage

    def _hp_search_setup(self, trial: Any) -> None:
        """Set the trial's arguments, then what the method's stage decides itself."""
        super()._hp_search_setup(trial)
        if trial is None or self._stage is None:
            return
        stage = self._stage
        self.args.num_train_epochs = stage.epochs
        if stage.learning_rate is not None:
            self.args.learning_rate = stage.learning_rate
        self.args.weight_decay = (
            self._own_weight_decay if stage.weight_decay is None else stage.weight_decay
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """Draw rows with replacement where the method weighs them, else each once an epoch."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        weights = (
            self.method.row_weights(dataset.labels, dataset.group)
            if isinstance(dataset, ImageDataset)
            else None
        )
        if weights is None:
            return super()._get_train_sampler(train_dataset)
        # A generator of its own, so that every process draws the same rows and takes its share.
        generator = torch.Generator().manual_seed(self.args.seed)
        return WeightedRandomSampler(weights.cpu(), len(weights), generator=generator)  # type: ignore[arg-type]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The parent's, but over several processes too an epoch has each row once."""
        return share_rows(super().get_train_dataloader())

    @property
    def _runs_fast(self) -> bool:
        on_gpu = self.args.device.type == "cuda" and bool(self.args.bf16)
        # The library's checkpointing is part of its blocks' own `forward`.
        return on_gpu and not self.args.gradient_checkpointing

    def _prepare_model(self) -> None:
        """Run a new model's blocks the fast way where the device and the precision allow it."""
        model: Any = self.model
        if self._prepared is model:
            return
        self._prepared = model
        fast = self._runs_fast
        if fast:
            FastForward(
                model,
                dtype=torch.bfloat16,
                residual=torch.bfloat16,
                compiled_rows=self._batch_sizes() if self._compile_blocks else frozenset(),
            )
        self._operations = count_operations(model, last_token_only=fast)
        # A model that is only scored may be given another adapter in between, and its memory is wanted elsewhere.
        recorded = self.is_in_train and self.args.device.type == "cuda"
        if recorded and self._operations is not None and self._takes_plain_steps():
            self._graphed = GraphedModel(model, self._operations.evaluation)

    def _batch_sizes(self) -> frozenset[int]:
        """Sizes of whole batches: those of the arguments, or a process's share of a split where it is smaller."""
        sizes = {self.args.train_batch_size, self.args.eval_batch_size}
        if isinstance(self.train_dataset, ImageDataset):
            share = math.ceil(len(self.train_dataset) / self.args.world_size)
            sizes.add(min(self.args.train_batch_size, share))
        if isinstance(self.eval_dataset, ImageDataset):
            sizes.add(min(self.args.eval_batch_size, len(self.eval_dataset)))
        return frozenset(sizes)

    @property
    def _is_alone(self) -> bool:
        """Whether nothing shares the model, its gradients or its optimizer out among processes."""
        return bool(self.accelerator.distributed_type == DistributedType.NO)

    def _takes_plain_steps(self) -> bool:
        """Whether each step is one forward pass and its backward pass as they are, in this process alone."""
        compiled = self._compile_blocks and self._runs_fast
        own = any(map(self.method.overrides, ("compute_loss", "compute_gradients")))
        plain = not own and not compiled
        one = self._is_alone and self.args.gradient_accumulation_steps == 1
        return plain and one and not self.args.gradient_checkpointing

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the optimizer, wrapped for one process where that is all there is to do."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new:
            self.parameter_groups = self.method.parameter_groups(self.model)
            set_apart(optimizer, self.parameter_groups)
        plain = isinstance(optimizer, torch.optim.AdamW) and self.accelerator.scaler is None
        if plain and self._is_alone:
            optimizer = PlainOptimizer(optimizer)
        self.optimizer = optimizer
        return optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the gradients together, but for those that a method has clipped apart."""
        if not self.parameter_groups:
            return super()._clip_grad_norm(model)
        apart = {id(p) for group in self.parameter_groups for p in group.parameters}
        rest = [p for p in model.parameters() if id(p) not in apart]
        return self.accelerator.clip_grad_norm_(rest, self.args.max_grad_norm)

    # The hooks below only note where the time goes; the loop is the parent's.

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch the batches of a step."""
        self.cost.clock.mark("data")
        samples = super().get_batch_samples(*args, **kwargs)
        self.cost.clock.mark("other")
        return samples

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Run forward and backward; what follows until the step's end is the optimizer's."""
        # FSDP puts other parameters in a model's place; what is compiled is another module.
        if self._known is None and self._is_alone and model is self.model:
            self._known = KnownModules(model)
        if self.method.overrides("compute_gradients"):
            self._is_first_pass = True
            backward = partial(self._backward, model, *args, **kwargs)
            loss = self.method.compute_gradients(model, backward)
        else:
            loss = super().training_step(model, *args, **kwargs)
        self.cost.clock.mark("optimizer")
        return loss

    def _backward(self, model: nn.Module, *args: Any, reduce: bool = True, **kwargs: Any) -> Tensor:
        """Do one forward and backward pass of a step that a method makes itself."""
        with nullcontext() if reduce else self.accelerator.no_sync(model):
            loss: Tensor = super().training_step(model, *args, **kwargs)
        self._is_first_pass = False
        return loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Score a split."""
        self.cost.clock.mark("evaluation")
        output = super().evaluation_loop(*args, **kwargs)
        self.cost.clock.mark("other" if self.is_in_train else None)
        self.cost.clock.collect()
        return output

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the parent walks all parameters every step for an estimate; `cost` counts instead."""
        return 0

    def predict_scores(self, dataset: ImageDataset) -> np.ndarray:
        """Score every row: the probability of the second label, float64 in [0, 1], shape `(n,)`."""
        dataset.to(self.args.device)
        logits = self.predict(dataset).predictions
        return np.asarray(softmax(logits.astype(np.float64), axis=1)[:, 1])

    def let_go(self) -> None:
        """Prepare the model anew the next time, and forget its parameters."""
        self._prepared = None
        self.forget_parameters()

    def forget_parameters(self) -> None:
        """Let go of what holds only while the model's parameters are the same objects."""
        self._graphed = None
        if self._known is not None:
            self._known.forget()
            self._known = None

    def end_stage(self) -> None:
        """Put the model that the method hands back in the place of the one that was trained."""
        trained = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.let_go()
        bare = self.method.end_stage(trained)
        if bare is not trained:  # an ordinary classifier, which knows nothing of the method
            self.accelerator.free_memory()
            self.model = self.model_wrapped = bare
            self.method = Method()


def _use_one_gpu(arguments: TrainingArguments) -> None:
    """Keep the parent from spreading a batch over all visible GPUs with `nn.DataParallel`.

    Its replicas run outside autocast and without our blocks, and multiply the batch size asked for.
    Several GPUs serve several processes: `accelerate launch`, or `--workers`.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
