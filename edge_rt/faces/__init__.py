"""The face pipeline: joins core to adapters through core's protocols."""
