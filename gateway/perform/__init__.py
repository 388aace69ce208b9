"""Performs tasks of a worklist (UPS-RS, IHE AI Workflow for Imaging): claims, fetches, has judged, stores, reports."""
