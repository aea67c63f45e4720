/* actors/node/node_agent.h - the actor of a node that speaks with the other nodes: the only process of it that has a
 * socket to the network, and the keys. The head's agent listens; those of the other nodes connect to it. A link between
 * two other nodes goes through the head.
 *
 *   node                            head
 *   JOIN{company, node, nonce}  ->  key, company and plan are right: new session
 *   session begins              <-  WELCOME{session}
 *   STATE of every actor        ->  control blocks of the remote actors, which the local ones watch: PEER_UP
 *   records of links            <-> records of links (transport/carrier.h); page tables go before what needs them
 *   PING                        <-> PING; silence for lease.link_ms or a broken connection ends the session: PEER_DOWN
 *   BYE                         <-> this node ends; answered by BYE, so that the one that leaves knows it was heard
 *
 * A session that ends takes what was under way with it. Its actors go down and come up again for all that watch them,
 * so the scheduler resets what they compute and issues it again; no request is lost. A node that stays away for
 * lease.away_s ends the company, a head that stays away ends the node.
 *
 * node_agent.c: sockets, loop, sessions · node_peers.c: control blocks of remote actors · node_core.c: liveness (pure)
 * node_tables.c: page tables. */
#ifndef TR_NODE_AGENT_H
#define TR_NODE_AGENT_H
#include "actors/node/node_core.h"
#include "actors/node/node_tables.h"
#include "actors/runtime/runtime.h"
#include "transport/carrier.h"
#include "transport/curve_key.h"
#include "transport/zmq_zap.h"

struct tr_node_agent;

typedef struct tr_node_peer {
    struct tr_node_agent *agent;
    uint32_t node; /* the other one: on the head each of them, elsewhere the head */
    tr_node_core core;
    tr_carrier *carrier;
    tr_node_tables tables; /* head: what that node's tables hold */
    bool left;             /* it said BYE */
    uint64_t nonce;        /* of the session, chosen by the node */
    uint32_t id_bytes;     /* head: routing id of its connection */
    uint8_t id[TR_MAX_CLIENT_ID_BYTES];
    uint64_t joined_ns, opened_ns; /* elsewhere: last JOIN, last new connection */
} tr_node_peer;

typedef struct tr_node_agent {
    tr_runtime *rt;
    const tr_company *company;
    bool head;
    void *socket;
    tr_zmq_zap *zap;
    tr_curve_key key;
    char server_key[TR_CURVE_KEY_TEXT];
    int64_t max_message_bytes;
    int hwm;
    uint32_t n_peers;
    tr_node_peer peer[TR_COMPANY_NODES_MAX];
    uint32_t n_channels;
    tr_channel *channel[2 * TR_COMPANY_LINKS_MAX]; /* owned */
    uint32_t life[TR_COMPANY_ACTORS_MAX];          /* head: added to the incarnations that a node reports */
    bool states_due;                               /* elsewhere */
    uint64_t states_ns;
} tr_node_agent;

/* node_peers.c */
/* Head: all actors of a node are down. */
void tr_node_peers_down(tr_node_agent *a, uint32_t node);
/* Head: a new session: what that node reports now is another life for all that watch. */
void tr_node_peers_renew(tr_node_agent *a, uint32_t node);
/* Head: a report. TR_PROTO: not of an actor of that node. */
tr_status tr_node_peers_state(tr_node_agent *a, uint32_t node, const tr_msg_node_state *m);
/* Head: every actor of the other nodes is up. */
bool tr_node_peers_complete(const tr_node_agent *a);
/* Elsewhere: report all actors of this node. */
tr_status tr_node_peers_report(tr_node_agent *a, tr_carrier *to);
#endif
