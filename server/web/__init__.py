"""HTTP's face: the page, /predict, and what describes them. Loaded only with --http."""
