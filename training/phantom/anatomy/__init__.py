"""What a synthetic head is made of at one level: brain, skull, posterior fossa, face, findings that are no stroke."""
