"""The mistakes of the reference code as edits of this code, and the tests that must notice each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutations import replacements
from tests.mutations.edits import Edit, Replace, Setting, Wrap


@dataclass(frozen=True)
class Mutation:
    """One mistake in one place.

    Attributes:
        name: Identifies it on the command line.
        mistake: The number of the mistake, 1 to 10; `tests.mutations` lists them.
        effect: What the code does wrong then.
        edits: Put the mistake into the code.
        caught_by: Dotted names of tests, each of which has to fail.
    """

    name: str
    mistake: int
    effect: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


ANY_SHAPE = Wrap("ranking._check_shapes", replacements.takes_any_column)


def running_average(metrics: str, *, count: str) -> tuple[Edit, ...]:
    """Return the edits that compute the primary metric of each batch and their mean."""
    return (
        Wrap(f"{metrics}.{count}", replacements.count_a_batch_by_itself),
        Wrap(f"{metrics}.merge", replacements.merge_running_averages),
        Wrap(f"{metrics}.compute", replacements.compute_a_running_average),
    )


MUTATIONS = (
    Mutation(
        "broadcast_module", 1,
        "the loss-prediction module gives (b, 1), and the ranking loss takes it against (b,)",
        (ANY_SHAPE, Wrap("ActiveLearning.forward", replacements.predicts_a_column)),
        (
            "test_shapes_that_would_broadcast_are_refused",
            "test_predicted_loss_has_shape_b",
        ),
    ),
    Mutation(
        "broadcast_classification", 1,
        "losses (b, 1) of classification are ranked against predictions (b,)",
        (ANY_SHAPE, Wrap("Classification.losses", replacements.returns_a_column)),
        ("test_losses_are_per_sample_and_the_objective_is_their_mean",),
    ),
    Mutation(
        "broadcast_detection", 1,
        "losses (b, 1) of detection are ranked against predictions (b,)",
        (ANY_SHAPE, Wrap("Detection.objective", replacements.losses_in_a_column)),
        ("test_loss_of_an_image_is_no_count_of_its_objects",),
    ),
    Mutation(
        "broadcast_segmentation", 1,
        "losses (b, 1) of segmentation are ranked against predictions (b,)",
        (ANY_SHAPE, Wrap("Segmentation.objective", replacements.losses_in_a_column)),
        ("test_the_ranking_loss_gets_a_loss_an_image",),
    ),
    Mutation(
        "fresh_network", 2,
        "the pool is scored by a freshly initialized network",
        (Wrap("TaskLearner.infer", replacements.infer_with_fresh_weights),),
        (
            "test_scoring_uses_the_trained_model_in_eval_mode",
            "test_pool_is_scored_by_the_trained_network",
            "test_what_it_scores_with_was_trained",
        ),
    ),
    Mutation(
        "eval_mode", 2,
        "scoring leaves the network in eval mode, and the next training starts there",
        (Replace("training.Training", "model.train()", "model"),),
        (
            "test_training_after_scoring_is_in_train_mode",
            "test_training_after_scoring_is_in_training_mode",
        ),
    ),
    Mutation(
        "discriminator", 3,
        "the discriminator's optimizer is given the parameters of another network",
        (
            Replace(
                "train_discriminator",
                "judge.parameters()",
                "Discriminator(mean, scale, width=width).parameters()",
            ),
        ),
        ("test_the_classifier_learns",),
    ),
    Mutation(
        "best_epoch", 4,
        "the epoch that is best on the test set is kept",
        (
            Wrap("TaskLearner.fit", replacements.fit_to_the_best_epoch),
            Wrap("Training._epoch", replacements.epoch_with_a_look_at_the_test_set),
        ),
        ("test_the_test_set_is_out_of_reach_of_training_and_scoring",),
    ),
    Mutation(
        "mean_of_batches", 4,
        "accuracy is a mean over batches of their accuracies",
        running_average("ClassificationMetrics", count="update"),
        (
            "metrics.test_classification.test_known_numbers",
            "test_evaluation_is_of_the_whole_test_set_with_the_last_weights",
        ),
    ),
    Mutation(
        "running_average", 4,
        "mean IoU is a running average of that of each batch",
        running_average("SegmentationMetrics", count="count"),
        (
            "test_it_is_one_matrix_not_a_mean_over_batches",
            "test_the_last_epoch_is_measured_on_whole_images_by_one_matrix",
        ),
    ),
    Mutation(
        "random_crops", 4,
        "segmentation is measured on crops of the test images",
        (Wrap("Segmentation.test_batch", replacements.crops_of_test_images),),
        ("test_evaluation_sees_whole_images",),
    ),
    Mutation(
        "selected_again", 5,
        "images or regions that are labeled are candidates again",
        (
            Replace(
                "loop.run_cycles",
                "pool.unlabeled",
                "np.setdiff1d(np.arange(pool.num_samples), pool.excluded)",
            ),
            Wrap("Pool.label", replacements.label_once_more),
        ),
        (
            "test_records_say_what_happened",
            "test_no_region_is_selected_twice",
        ),
    ),
    Mutation(
        "full_paths", 6,
        "the file to upload has full paths, which the annotation tool does not know",
        (Replace("write_upload_csv", "bare_name(name)", "os.path.abspath(name)"),),
        (
            "test_the_importer_cannot_change_the_order_of_an_upload",
            "test_queries_and_rankings_are_written_as_documented",
        ),
    ),
    Mutation(
        "only_chosen", 6,
        "the CSV of scores has the chosen rows only",
        (Wrap("RunFolder.write_query", replacements.write_chosen_rows),),
        ("test_queries_and_rankings_are_written_as_documented",),
    ),
    Mutation(
        "overwritten", 6,
        "one CSV of scores, overwritten every cycle",
        (Wrap("RunFolder.write_query", replacements.write_the_first_file_again),),
        ("test_queries_and_rankings_are_written_as_documented",),
    ),
    Mutation(
        "any_text_is_true", 7,
        "the text false is true, as with type=bool",
        (Wrap("checks.check_flag", replacements.takes_any_flag),),
        ("test_cycle_settings_that_make_no_sense_are_refused",),
    ),
    Mutation(
        "hard_coded_device", 7,
        "the device is the first GPU or the CPU, whatever is asked for",
        (Wrap("engine._device", replacements.chooses_the_device_itself),),
        ("test_settings_that_are_not_permitted_are_refused",),
    ),
    Mutation(
        "resumes_weights_only", 7,
        "a resumed run takes over the weights, and nothing else",
        (Wrap("RunFolder._read_state", replacements.read_the_checkpoint_only),),
        ("test_a_commit_adds_a_cycle_and_a_new_process_finds_it",),
    ),
    Mutation(
        "same_weights_every_cycle", 7,
        "with a warm start every cycle goes on from the weights that were restored",
        (
            Wrap("TaskLearner.load_state_dict", replacements.keep_what_is_loaded),
            Wrap("TaskLearner.fit", replacements.fit_what_was_loaded),
        ),
        ("test_restored_weights_are_gone_on_with_once",),
    ),
    Mutation(
        "sum_of_boxes", 8,
        "the detection loss of an image is a sum over its boxes",
        (
            Replace(
                "MultiBox.losses", "sums / counts.clamp(min=1)", "sums"
            ),
        ),
        ("test_loss_of_an_image_is_no_count_of_its_objects",),
    ),
    Mutation(
        "five_announced", 9,
        "a strategy that announces 10 passes asks for 5",
        (Setting("strategy/mc_dropout_variance", "mc_dropout_passes", "5"),),
        ("test_ten_passes_are_ten_passes",),
    ),
    Mutation(
        "five_passes_classification", 9,
        "classification makes 5 passes with dropout where 10 are announced",
        (Wrap("Classification.posterior_samples", replacements.half_the_passes),),
        ("test_posterior_samples.test_passes_are_different_networks_the_same_whenever_asked",),
    ),
    Mutation(
        "five_passes_detection", 9,
        "detection makes 5 passes with dropout where 10 are announced",
        (Wrap("Detection.posterior_samples", replacements.half_the_passes),),
        ("test_detection.test_passes_are_different_networks_the_same_whenever_asked",),
    ),
    Mutation(
        "five_passes_segmentation", 9,
        "segmentation makes 5 passes with dropout where 10 are announced",
        (Wrap("Segmentation.posterior_samples", replacements.half_the_passes),),
        ("test_ten_passes_are_ten_passes",),
    ),
    Mutation(
        "batches_of_four", 10,
        "the pool is scored in batches of 4",
        (Replace("TaskLearner", "self.task.eval_batch_size", "min(4, self.task.eval_batch_size)"),),
        ("test_every_sample_goes_through_the_model_once_in_large_batches",),
    ),
    Mutation(
        "list_filter", 10,
        "the unlabeled samples are found by `not in` a list, in O(N k)",
        (Wrap("Pool.unlabeled", replacements.filter_by_a_list),),
        ("test_finding_the_unlabeled_takes_no_python_object_a_sample",),
    ),
    Mutation(
        "loop_over_pairs", 10,
        "ranking accuracy is counted in a Python loop over every pair of the batch",
        (Wrap("ranking.ranking_accuracy", replacements.loop_over_pairs),),
        (
            "test_no_loop_over_pairs_and_no_synchronization",
            "test_ranking_takes_as_many_operations_for_any_batch",
        ),
    ),
)  # fmt: skip
