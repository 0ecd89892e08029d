//! The contract both ends share: Image, Operation and Create messages, their validation, and the client.
