"""What a study's answer becomes for those who read it: a report, a page that any viewer opens, FHIR, HL7."""
