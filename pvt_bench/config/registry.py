"""What Hydra is told before it composes: the schema, recipes, and the folder of experiments."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from pvt_bench.config.folders import data_dir
from pvt_bench.config.recipes import recipe_table
from pvt_bench.config.schema import Config


class Experiments(SearchPathPlugin):
    """Adds `experiments/`, where `table=` and `sweep=` are found, to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Look there after `conf/`."""
        search_path.append("pvt_bench", f"file://{data_dir('experiments')}")


def register() -> None:
    """Make the schema known to Hydra, under the name that `conf/config.yaml` starts from, and the
    folder of experiments."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, recipe in recipe_table()["settings"].items():
        store.store(name=name, node=recipe["set"], group="recipe", package="_global_")
    # For conf/: the first value where there is one, otherwise the second.
    OmegaConf.register_new_resolver(
        "either", lambda first, second: second if first is None else first, replace=True
    )
    if Experiments not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(Experiments)
