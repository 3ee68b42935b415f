from onesearch.training.training_curves import Averages, CurveLog, plot_curves


def test_averages_are_means_since_the_last_line_and_survive_json():
    averages = Averages()
    for value in (1.0, 2.0, 6.0):
        averages.add("loss", value)
    averages.samples = 30
    again = Averages.from_state(averages.state())
    assert again.take(10.0) == {"loss": 3.0, "samples_per_second": 3.0, "seconds": 10.0}
    again.add("loss", 5.0)
    again.samples = 40
    assert again.take(15.0) == {"loss": 5.0, "samples_per_second": 2.0, "seconds": 15.0}


def test_the_log_drops_half_lines_and_steps_that_will_be_done_again(tmp_path):
    log = CurveLog(tmp_path / "sub" / "log.jsonl")
    for step in (10, 20, 30):
        log.add(step, {"loss": 1.0 / step}, epoch=0.5)
    with log.path.open("a") as file:
        file.write('{"step": 40, "lo')
    log.keep_until(20)
    assert [record["step"] for record in log.records()] == [10, 20] and log.last("loss") == 0.05
    assert log.path.read_text().endswith("\n")


def test_plots_are_pictures_and_an_empty_log_draws_nothing(tmp_path):
    log = CurveLog(tmp_path / "log.jsonl")
    plot_curves(log.path, tmp_path / "none.png", "empty")
    assert not (tmp_path / "none.png").exists()
    for step in (1, 2):
        log.add(step, {"loss": 1.0, "a/level_1": 2.0, "valid/hr@10": 0.1, "samples_per_second": 9.0}, learning_rate=0.1)
    plot_curves(log.path, tmp_path / "curves.png", "two steps")
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
