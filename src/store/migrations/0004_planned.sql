-- While an attempt is open: the next hops that were to be tried, one JSON object a line, for
-- the record of one whose process dies.
ALTER TABLE attempt ADD COLUMN planned TEXT;
