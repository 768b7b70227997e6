//! What only looks.

mod four_letter;
mod mntr;
