"""One function run(inputs, outputs, scenario) per step: the seam between library and workflow."""
