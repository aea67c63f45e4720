/* model/jinja_parse.h - a template as a tree; private to model/jinja*.c. Grammar: that of jinja2 3.1 (lexer.py,
 * parser.py), less what model/jinja.h leaves out. All memory is of the arena; nesting is bounded. */
#ifndef TR_JINJA_PARSE_H
#define TR_JINJA_PARSE_H
#include "model/jinja_value.h"

typedef enum tr_jinja_node_kind {
    /* statements */
    TR_JINJA_NODE_BLOCK,    /* list */
    TR_JINJA_NODE_SCOPE,    /* list, in a scope of its own */
    TR_JINJA_NODE_TEXT,     /* value */
    TR_JINJA_NODE_OUTPUT,   /* a */
    TR_JINJA_NODE_IF,       /* a condition, b then, c else or NULL */
    TR_JINJA_NODE_FOR,      /* a target, b over, c condition or NULL, list body, more else */
    TR_JINJA_NODE_SET,      /* a target, b */
    TR_JINJA_NODE_SET_TEXT, /* a target, b filters over HOLE or NULL, list body */
    TR_JINJA_NODE_FILTERED, /* b filters over HOLE, list body */
    TR_JINJA_NODE_MACRO,    /* name, more parameters, list body */
    TR_JINJA_NODE_CALLING,  /* a call, b macro of the body */
    TR_JINJA_NODE_BREAK,
    TR_JINJA_NODE_CONTINUE,
    /* expressions */
    TR_JINJA_NODE_CONST,     /* value */
    TR_JINJA_NODE_NAME,      /* name; also a target and a parameter (a: default or NULL) */
    TR_JINJA_NODE_HOLE,      /* text of the block that is filtered */
    TR_JINJA_NODE_LIST,      /* list */
    TR_JINJA_NODE_TUPLE,     /* list */
    TR_JINJA_NODE_DICT,      /* list: key, value, ... */
    TR_JINJA_NODE_ATTRIBUTE, /* a, value: name; also a target (namespace) */
    TR_JINJA_NODE_INDEX,     /* a, b */
    TR_JINJA_NODE_SLICE,     /* a, list: begin, end, step, each may be NULL */
    TR_JINJA_NODE_CALL,      /* a, list arguments, more named arguments */
    TR_JINJA_NODE_NAMED,     /* value: name, a */
    TR_JINJA_NODE_FILTER,    /* a, value: name, list, more */
    TR_JINJA_NODE_TEST,      /* a, value: name, list, more */
    TR_JINJA_NODE_UNARY,     /* op, a */
    TR_JINJA_NODE_BINARY,    /* op, a, b */
    TR_JINJA_NODE_COMPARE,   /* a, list of BINARY whose b is the other side */
    TR_JINJA_NODE_CONDITION  /* a if b else c (NULL) */
} tr_jinja_node_kind;

typedef enum tr_jinja_op {
    TR_JINJA_OP_NONE,
    TR_JINJA_OP_ADD,
    TR_JINJA_OP_SUB,
    TR_JINJA_OP_MUL,
    TR_JINJA_OP_DIV,
    TR_JINJA_OP_FLOOR,
    TR_JINJA_OP_MOD,
    TR_JINJA_OP_POW,
    TR_JINJA_OP_JOIN, /* ~ */
    TR_JINJA_OP_AND,
    TR_JINJA_OP_OR,
    TR_JINJA_OP_NOT,
    TR_JINJA_OP_EQ,
    TR_JINJA_OP_NE,
    TR_JINJA_OP_LT,
    TR_JINJA_OP_LE,
    TR_JINJA_OP_GT,
    TR_JINJA_OP_GE,
    TR_JINJA_OP_IN,
    TR_JINJA_OP_NOT_IN
} tr_jinja_op;

typedef struct tr_jinja_node tr_jinja_node;
typedef struct tr_jinja_nodes {
    tr_jinja_node **item;
    uint32_t n, room;
} tr_jinja_nodes;

struct tr_jinja_node {
    tr_jinja_node_kind kind;
    tr_jinja_op op;
    uint32_t line, name; /* name: number of a variable's name */
    tr_jinja_value value;
    tr_jinja_node *a, *b, *c;
    tr_jinja_nodes list, more;
};

/* Variable names by number, the same one for equal names. */
typedef struct tr_jinja_names {
    tr_jinja_value *name;
    uint32_t n, room;
} tr_jinja_names;

typedef enum tr_jinja_token_kind {
    TR_JINJA_TOKEN_END,
    TR_JINJA_TOKEN_TEXT,
    TR_JINJA_TOKEN_BLOCK_BEGIN,
    TR_JINJA_TOKEN_BLOCK_END,
    TR_JINJA_TOKEN_OUTPUT_BEGIN,
    TR_JINJA_TOKEN_OUTPUT_END,
    TR_JINJA_TOKEN_NAME,
    TR_JINJA_TOKEN_CONST, /* text or number */
    TR_JINJA_TOKEN_OPERATOR
} tr_jinja_token_kind;

typedef struct tr_jinja_token {
    tr_jinja_token_kind kind;
    uint32_t line;
    tr_jinja_value value; /* text of names and operators too */
} tr_jinja_token;

/* The tokens, ended by TR_JINJA_TOKEN_END (jinja_lex.c). */
tr_jinja_token *tr_jinja_parse_tokens(tr_jinja_arena *a, const char *text, size_t bytes);
tr_jinja_node *tr_jinja_parse(tr_jinja_arena *a, const char *text, size_t bytes, tr_jinja_names *names);
uint32_t tr_jinja_parse_name(tr_jinja_arena *a, tr_jinja_names *names, const char *s, size_t len);
#endif
