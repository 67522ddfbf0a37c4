# Pages of the repository that are not rendered with the headers are named, not linked.
s,\]\((embedding|model-file)\.md\),](\1.MD),g
s,\[([^]]+)\]\([^)]*\.md\),\1,g
s,\.MD\),.md),g
