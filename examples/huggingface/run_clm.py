"""Train a small language model from scratch with the Trainer of Hugging Face: its run_clm.py in miniature."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, Trainer, TrainingArguments, set_seed


@dataclass
class ModelArguments:
    """The size of the model."""

    n_embd: int = field(default=64, metadata={"help": "Width."})
    n_layer: int = field(default=2, metadata={"help": "Number of blocks."})
    n_head: int = field(default=2, metadata={"help": "Number of heads of each block."})


@dataclass
class DataTrainingArguments:
    """The text."""

    # A text that is on every machine with Python.
    train_file: str = field(default=argparse.__file__, metadata={"help": "A text file."})
    block_size: int = field(default=64, metadata={"help": "Number of bytes in each sample."})


class Blocks(Dataset):
    """The bytes of a text in blocks of equal length."""

    def __init__(self, text: bytes, size: int) -> None:
        self.blocks = torch.tensor(list(text[: len(text) // size * size])).view(-1, size)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.blocks[index], "labels": self.blocks[index]}


def main() -> None:
    """Train, evaluate, and save the model."""
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    text = Path(data_args.train_file).read_bytes()
    cut = len(text) * 19 // 20
    config = GPT2Config(
        vocab_size=256,
        n_positions=data_args.block_size,
        n_embd=model_args.n_embd,
        n_layer=model_args.n_layer,
        n_head=model_args.n_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=training_args,
        train_dataset=Blocks(text[:cut], data_args.block_size),
        eval_dataset=Blocks(text[cut:], data_args.block_size),
    )
    if training_args.do_train:
        result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        trainer.save_model()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if training_args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
