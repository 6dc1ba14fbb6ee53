-- Without it every message that goes is looked for in all mails, to see that none refers to it.
CREATE INDEX mail_message ON mail (message);
