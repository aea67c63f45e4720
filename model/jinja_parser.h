/* model/jinja_parser.h - a reader of tokens, and expressions; private to model/jinja*.c. Failures jump
 * (model/jinja_value.h). */
#ifndef TR_JINJA_PARSER_H
#define TR_JINJA_PARSER_H
#include "model/jinja_parse.h"

typedef struct tr_jinja_parser {
    tr_jinja_arena *a;
    const tr_jinja_token *t; /* the current one */
    tr_jinja_names *names;
    uint32_t depth, loops;
} tr_jinja_parser;

tr_jinja_node *tr_jinja_parser_make(tr_jinja_parser *p, tr_jinja_node_kind kind);
void tr_jinja_parser_push(tr_jinja_parser *p, tr_jinja_nodes *l, tr_jinja_node *n);
void tr_jinja_parser_next(tr_jinja_parser *p);
void tr_jinja_parser_enter(tr_jinja_parser *p); /* one level deeper; p->depth-- leaves it */
/* Is the current token this one? take: and go past it. expect: fails otherwise. */
bool tr_jinja_parser_is_operator(const tr_jinja_parser *p, const char *text);
bool tr_jinja_parser_is_name(const tr_jinja_parser *p, const char *text);
bool tr_jinja_parser_take_operator(tr_jinja_parser *p, const char *text);
bool tr_jinja_parser_take_name(tr_jinja_parser *p, const char *text);
void tr_jinja_parser_expect_operator(tr_jinja_parser *p, const char *text);
void tr_jinja_parser_expect(tr_jinja_parser *p, tr_jinja_token_kind kind, const char *what);
_Noreturn void tr_jinja_parser_unexpected(tr_jinja_parser *p, const char *wanted);
/* The number of the name that stands here; as a node. */
uint32_t tr_jinja_parser_name(tr_jinja_parser *p);
tr_jinja_node *tr_jinja_parser_name_node(tr_jinja_parser *p);

/* jinja_expression.c */
tr_jinja_node *tr_jinja_parser_expression(tr_jinja_parser *p);
tr_jinja_node *tr_jinja_parser_condition(tr_jinja_parser *p); /* an expression without `if` */
/* One expression, or several between commas. condition: a following `if` belongs to it. brackets: may be empty. */
tr_jinja_node *tr_jinja_parser_tuple(tr_jinja_parser *p, bool condition, bool brackets);
tr_jinja_node *tr_jinja_parser_filter(tr_jinja_parser *p, tr_jinja_node *n);   /* name(arguments) */
tr_jinja_node *tr_jinja_parser_filtered(tr_jinja_parser *p, tr_jinja_node *n); /* | filters, is tests, calls */
#endif
